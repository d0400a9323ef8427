"""TU graph sets: ``<NAME>_A.txt`` and its companions (Morris et al. 2020)."""

from __future__ import annotations

import numpy as np
import torch

from gkdbench.data.build import MAX_IDS, NumpyArray, dense, features_of, graph_of, one_hot
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import codes, in_range, integers
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.task import Task


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Node labels one-hot, or one-hot in-degree where there are none; edge labels one-hot; self-loops removed.

    Graph labels are numbered in the order of their values.
    """
    refuse_in_worker(info.name)
    limit = raw.text_bytes
    at, of = raw.ending("_A.txt"), raw.ending("_graph_indicator.txt")
    indicator = in_range(of, integers(of, limit=limit), 1, MAX_IDS, "number of a graph", limit=limit) - 1
    edges = integers(at, limit=limit).reshape(-1, 2)
    edges = in_range(at, edges, 1, len(indicator) + 1, "node of an edge", limit=limit) - 1
    classes, labels = np.unique(integers(raw.ending("_graph_labels.txt"), limit=limit), return_inverse=True)
    if (np.diff(indicator) < 0).any() or int(indicator.max()) + 1 != len(labels):
        raise CorruptData(f"{info.name}: the graph indicator does not number {len(labels)} graphs in order")
    graph = graph_of(edges[:, 0], edges[:, 1], len(indicator), undirected=False)
    found = raw.matching("_node_labels.txt")
    if found:
        listed = integers(found[0], limit=limit).reshape(len(indicator), -1)
        features = one_hot(codes(found[0], listed, 0, "node label", limit=limit))
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
    listed = integers(found[0], limit=raw.text_bytes).reshape(len(edges), -1)
    labels = codes(found[0], listed, 0, "edge label", limit=raw.text_bytes)
    keep = edges[:, 0] != edges[:, 1]
    _, first = np.unique(edges[keep, 1] * num_nodes + edges[keep, 0], return_index=True)
    return dense(one_hot(labels[keep][first]), "edge labels")
