"""Attributed graphs as one npz of CSR parts: Amazon, Coauthor, CPF and citation-full (Shchur et al. 2018)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from gkdbench.data.build import features_of, graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.npz import open_npz
from gkdbench.data.task import Task

CSR = ("data", "indices", "indptr", "shape")


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Undirected, unweighted, without self-loops, features as stored: what every published loader starts from."""
    refuse_in_worker(info.name)
    (path,) = raw.at.values()
    names = [f"{part}_{piece}" for part in ("adj", "attr") for piece in CSR]
    stored = open_npz(path, [*names, "labels"])
    adjacency, attributes = (
        sp.csr_array(
            (
                stored[f"{part}_data"],
                stored[f"{part}_indices"],
                stored[f"{part}_indptr"],
            ),
            shape=tuple(stored[f"{part}_shape"]),
        )
        for part in ("adj", "attr")
    )
    labels = stored["labels"].astype(np.int64)
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
