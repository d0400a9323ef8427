"""What a split family does to graph and features before it splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures

from gkdbench.data.build import NumpyArray, graph_of
from gkdbench.data.task import StoredFeatures, Task


def preprocess(task: Task, steps: Mapping[str, str]) -> tuple[Task, NumpyArray]:
    """Apply `steps` (a family's preprocessing) to `task`.

    Returns:
        The prepared task, and the raw ids of its items ([M] int64).
    """
    ids = np.arange(task.num_items, dtype=np.int64)
    if steps["edges"] == "undirected" and task.graph.symmetric is not True:
        graph = task.graph
        both = graph_of(
            graph.index.numpy(),
            graph.row.numpy(),
            graph.num_dst,
            undirected=True,
            loops=True,
        )
        task = task.with_(graph=both)
    if steps["component"] == "largest":
        ids = largest_component(task.graph)
        task = induced(task, ids)
    if steps["self_loops"] == "added":
        task = task.with_(graph=with_self_loops(task.graph))
    if steps["features"] == "row-normalised":
        task = task.with_(features=row_normalised(task.features))
    return task, ids


def largest_component(graph: CSRGraph) -> NumpyArray:
    """[M] int64 ids of the largest connected component, ascending; of equals the one with the highest first id.

    The order of the official loaders: component sizes sorted ascending by numpy, the last one taken.
    """
    size = graph.num_dst
    matrix = sp.csr_array(
        (np.ones(graph.num_edges, np.int8), graph.index.numpy(), graph.indptr.numpy()),
        shape=(size, size),
    )
    _, component = sp.csgraph.connected_components(matrix, directed=False)
    return np.flatnonzero(component == np.argsort(np.bincount(component))[-1]).astype(np.int64)


def induced(task: Task, ids: NumpyArray) -> Task:
    """The node task on the nodes `ids` ([M] int64) and the edges among them, numbered by their order in `ids`."""
    if len(ids) == task.num_nodes and (ids == np.arange(task.num_nodes)).all():
        return task
    new = np.full(task.num_nodes, -1, np.int64)
    new[ids] = np.arange(len(ids))
    src, dst = new[task.graph.index.numpy()], new[task.graph.row.numpy()]
    keep = (src >= 0) & (dst >= 0)
    graph = graph_of(src[keep], dst[keep], len(ids), undirected=False, loops=True)
    chosen, features = torch.from_numpy(ids), task.features
    return task.with_(
        graph=CSRGraph(graph.indptr, graph.index, len(ids), task.graph.symmetric),
        features=features.rows(chosen) if isinstance(features, SparseFeatures) else features[chosen],
        labels=task.labels[chosen],
        official={},
    )


def with_self_loops(graph: CSRGraph) -> CSRGraph:
    """`graph` with exactly one loop at every node, rows sorted by source."""
    nodes = np.arange(graph.num_dst)
    src = np.concatenate([graph.index.numpy(), nodes])
    dst = np.concatenate([graph.row.numpy(), nodes])
    looped = graph_of(src, dst, graph.num_dst, undirected=False, loops=True)
    return CSRGraph(looped.indptr, looped.index, graph.num_dst, graph.symmetric)


def row_normalised(features: StoredFeatures) -> StoredFeatures:
    """Rows divided by their sum; rows that sum to zero stay as they are (Kipf and Welling's loader)."""
    if isinstance(features, SparseFeatures):
        row = features.graph.row
        total = torch.zeros(features.shape[0]).index_add_(0, row, features.value)
        total[total == 0] = 1.0
        return SparseFeatures(features.graph, features.value / total[row])
    total = features.sum(dim=1, keepdim=True)
    return features / torch.where(total == 0, torch.ones_like(total), total)
