"""OGB graph sets as their raw csv.gz tables (Hu et al. 2020): molecules with atom and bond codes."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import MAX_IDS, NumpyArray, dense, features_of, graph_of, multi_hot
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import MAX_CODES, in_range, table
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.tables import official_split
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Each bond in both directions, both with its codes; codes one-hot, side by side; labels [G, tasks] with NaN holes.

    Codes are numbered from 0 and have no order: as one-hot columns the first layer of any model is OGB's sum of
    embeddings, one of each code.
    """
    refuse_in_worker(info.name)

    def numbers(name: str, high: int, what: str) -> NumpyArray:
        path = raw.ending(name)
        return in_range(path, table(path, limit=raw.text_bytes), 0, high, what, limit=raw.text_bytes)

    nodes = numbers("num-node-list.csv.gz", MAX_IDS, "number of nodes").ravel()
    bonds = numbers("num-edge-list.csv.gz", MAX_IDS, "number of edges").ravel()
    edges = numbers("/edge.csv.gz", MAX_IDS, "node of an edge")
    bond_codes = numbers("edge-feat.csv.gz", MAX_CODES, "bond code")
    atom_codes = numbers("node-feat.csv.gz", MAX_CODES, "atom code")
    labels = table(raw.ending("graph-label.csv.gz"), np.float32, limit=raw.text_bytes)
    if not (
        len(nodes) == len(bonds) == len(labels)
        and nodes.sum() == len(atom_codes)
        and bonds.sum() == len(edges) == len(bond_codes)
    ):
        raise CorruptData(
            f"{info.name}: expected tables of one number of graphs, nodes and edges, got different numbers; fetch them "
            "again"
        )
    if edges.shape[1] != 2:
        raise CorruptData(f"{info.name}: edges: expected two nodes a line, got {edges.shape[1]}; fetch the files again")
    size = np.repeat(nodes, bonds)[:, None]
    in_range(raw.ending("/edge.csv.gz"), edges, 0, size, "node of an edge in its graph", limit=raw.text_bytes)
    ptr = np.concatenate([[0], np.cumsum(nodes)])
    src, dst = (edges + np.repeat(ptr[:-1], bonds)[:, None]).T
    return Task(
        name=info.name,
        kind="graph",
        graph=graph_of(src, dst, int(ptr[-1]), undirected=True),
        features=features_of(multi_hot(atom_codes)),
        labels=torch.from_numpy(labels),
        num_classes=labels.shape[1],
        multi_label=info.multi_label,
        metric=info.metric,
        graph_ptr=torch.from_numpy(ptr),
        edge_features=bond_columns(src, dst, bond_codes, int(ptr[-1])),
        official=official_split(raw, "ogb-graph", len(labels)),
        note=info.note,
    )


def bond_columns(src: NumpyArray, dst: NumpyArray, codes: NumpyArray, num_nodes: int) -> torch.Tensor:
    """[E, F] float32 one-hot codes of ``graph_of(src, dst, num_nodes, undirected=True)``'s edges, in its order.

    Args:
        codes: [E / 2, fields] int >= 0, one row for each listed edge.
    """
    keep = src != dst
    src, dst, codes = src[keep], dst[keep], codes[keep]
    pairs = np.concatenate([dst * num_nodes + src, src * num_nodes + dst])
    _, first = np.unique(pairs, return_index=True)
    return dense(multi_hot(np.concatenate([codes, codes])[first]), "bond codes")
