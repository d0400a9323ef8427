"""OGB graph sets as their raw csv.gz tables (Hu et al. 2020): molecules with atom and bond codes."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of, multi_hot
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.tables import official_split, table
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Each bond in both directions, both with its codes; codes one-hot, side by side; labels [G, tasks] with NaN holes.

    Codes are numbered from 0 and have no order: as one-hot columns the first layer of any model is OGB's sum of
    embeddings, one of each code.
    """
    refuse_in_worker(info.name)
    nodes, bonds = (table(raw.ending(f"num-{what}-list.csv.gz")).ravel() for what in ("node", "edge"))
    edges, bond_codes = table(raw.ending("/edge.csv.gz")), table(raw.ending("edge-feat.csv.gz"))
    atom_codes = table(raw.ending("node-feat.csv.gz"))
    labels = table(raw.ending("graph-label.csv.gz"), np.float32)
    if not (
        len(nodes) == len(bonds) == len(labels)
        and nodes.sum() == len(atom_codes)
        and bonds.sum() == len(edges) == len(bond_codes)
    ):
        raise CorruptData(
            f"{info.name}: expected tables of one number of graphs, nodes and edges, got different numbers; fetch them "
            "again"
        )
    if min(atom_codes.min(initial=0), bond_codes.min(initial=0)) < 0:
        raise CorruptData(
            f"{info.name}: atom and bond codes: expected 0 or more, got negative ones; fetch the files again"
        )
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
        official=official_split(raw, "ogb-graph"),
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
    return torch.from_numpy(multi_hot(np.concatenate([codes, codes])[first]).toarray())
