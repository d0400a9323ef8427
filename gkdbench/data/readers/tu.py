"""TU graph sets: ``<NAME>_A.txt`` and its companions (Morris et al. 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from gkdbench.data.build import NumpyArray, features_of, graph_of, one_hot
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Node labels one-hot, or one-hot in-degree where there are none; edge labels one-hot; self-loops removed.

    Graph labels are numbered in the order of their values.
    """
    refuse_in_worker(info.name)
    edges = _numbers(raw.ending("_A.txt")).reshape(-1, 2) - 1
    indicator = _numbers(raw.ending("_graph_indicator.txt")) - 1
    classes, labels = np.unique(_numbers(raw.ending("_graph_labels.txt")), return_inverse=True)
    if (np.diff(indicator) < 0).any() or int(indicator.max()) + 1 != len(labels):
        raise CorruptData(f"{info.name}: the graph indicator does not number {len(labels)} graphs in order")
    graph = graph_of(edges[:, 0], edges[:, 1], len(indicator), undirected=False)
    codes = raw.matching("_node_labels.txt")
    if codes:
        nodes = _numbers(codes[0]).reshape(len(indicator), -1)[:, 0]
        features = one_hot(nodes - nodes.min())
    else:
        features = one_hot(graph.degree.numpy())
    return Task(
        name=info.name,
        kind="graph",
        graph=graph,
        features=features_of(features),
        labels=torch.from_numpy(labels.astype(np.int64)),
        num_classes=len(classes),
        graph_ptr=torch.from_numpy(np.searchsorted(indicator, np.arange(len(labels) + 1)).astype(np.int64)),
        edge_features=_edge_features(raw, edges, len(indicator)),
        note=info.note,
    )


def _edge_features(raw: RawFiles, edges: NumpyArray, num_nodes: int) -> torch.Tensor | None:
    """[E, F] float32 one-hot edge labels in the order of the graph's edges: by destination, then source."""
    found = raw.matching("_edge_labels.txt")
    if not found:
        return None
    codes = _numbers(found[0]).reshape(len(edges), -1)[:, 0]
    keep = edges[:, 0] != edges[:, 1]
    _, first = np.unique(edges[keep, 1] * num_nodes + edges[keep, 0], return_index=True)
    return torch.from_numpy(one_hot((codes - codes.min())[keep][first]).toarray())


def _numbers(path: Path, dtype: DTypeLike = np.int64) -> NumpyArray:
    """All numbers of a text file separated by commas and line ends, flat."""
    try:
        return np.array(path.read_text(encoding="ascii").replace(",", " ").split(), dtype=dtype)
    except ValueError as error:
        raise CorruptData(f"{path}: expected integers, got: {error}; fetch it again") from error
