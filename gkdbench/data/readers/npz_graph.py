"""Attributed graphs as one npz of CSR parts: Amazon, Coauthor, CPF and citation-full (Shchur et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import scipy.sparse as sp
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import class_labels, open_npz, sparse_matrix
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.task import Task

CSR = ("data", "indices", "indptr", "shape")


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Undirected, unweighted, without self-loops, features as stored: what every published loader starts from."""
    refuse_in_worker(info.name)
    (path,) = raw.at.values()
    names = [f"{part}_{piece}" for part in ("adj", "attr") for piece in CSR]
    stored = open_npz(path, [*names, "labels"])
    adjacency, attributes = (_matrix(path, stored, part) for part in ("adj", "attr"))
    labels = class_labels(path, stored["labels"])
    if not adjacency.shape[0] == attributes.shape[0] == len(labels):
        raise CorruptData(
            f"{path}: expected one feature row and label per node, got {adjacency.shape[0]} nodes, "
            f"{attributes.shape[0]} rows, {len(labels)} labels"
        )
    edges = adjacency.tocoo()
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(edges.coords[0], edges.coords[1], len(labels), undirected=True),
        features=features_of(attributes),
        labels=torch.from_numpy(labels),
        num_classes=int(labels.max()) + 1,
        note=info.note,
    )


def _matrix(path: Path, stored: Mapping[str, NumpyArray], part: str) -> sp.csr_array:
    data, indices, indptr, shape = (stored[f"{part}_{piece}"] for piece in CSR)
    return sparse_matrix(path, data, indices, indptr, shape, part)
