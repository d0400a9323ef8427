"""Problems of a fraction of a second, and the ways to tamper with them that must not change a training run."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, feature_rows
from torch import Tensor

from gkdbench.data.splits import Split, SplitTask, prepare, prepare_named
from gkdbench.data.task import Task

NODES = "csbm:n=210,classes=3,d=16,degree=6"
MULTILABEL = "csbm-multilabel:n=120,classes=3,d=16,degree=6"


def small_problem(setting: str) -> SplitTask:
    """A problem for ``"tran"``, ``"ind"`` (210 nodes), ``"graph"`` (90 graphs) or ``"multilabel"`` (120 nodes)."""
    if setting == "graph":
        return prepare(small_graphs(), "random-80-10-10")
    if setting == "multilabel":
        return prepare_named(MULTILABEL, "node-80-10-10")
    return prepare_named(NODES, {"tran": "builtin-random", "ind": "builtin-random-ind20"}[setting])


def small_graphs(count: int = 90) -> Task:
    """Paths, cycles and stars of 4 to 8 nodes with three noisy features: three classes of graphs, in turn."""
    rng = np.random.default_rng(0)
    edges, features, borders = [], [], [0]
    for graph in range(count):
        size, first = int(rng.integers(4, 9)), borders[-1]
        node = np.arange(first, first + size)
        pairs = {
            0: np.stack([node[:-1], node[1:]]),
            1: np.stack([node, np.roll(node, 1)]),
            2: np.stack([np.full(size - 1, first), node[1:]]),
        }[graph % 3]
        edges.append(np.concatenate([pairs, pairs[::-1]], axis=1))
        features.append(rng.standard_normal((size, 3)) + (np.arange(3) == graph % 3))
        borders.append(first + size)
    return Task.from_arrays(
        "small-graphs",
        np.concatenate(edges, axis=1),
        np.concatenate(features).astype(np.float32),
        np.arange(count) % 3,
        kind="graph",
        graph_ptr=np.array(borders),
    )


def relabelled(problem: SplitTask, items: np.ndarray) -> SplitTask:
    """`problem` with the label of every one of `items` ([M] int64 ids) changed to another."""
    labels = problem.task.labels.clone()
    chosen = torch.from_numpy(items)
    other = (labels[chosen] + 1) % problem.task.num_classes
    labels[chosen] = 1 - labels[chosen] if problem.task.multi_label else other
    return replace(problem, task=problem.task.with_(labels=labels))


def with_other_unseen(problem: SplitTask) -> SplitTask:
    """`problem` with other labels, features and edges for all that training must not see.

    That is the unseen nodes of an inductive split, and the nodes of the test graphs of a graph task.
    """
    graphs = problem.task.kind == "graph"
    changed = relabelled(problem, problem.split.test if graphs else problem.split.unseen)
    task, graph = changed.task, changed.task.graph
    hidden = _nodes_of_graphs(task, problem.split.test) if graphs else torch.from_numpy(problem.split.unseen)
    generator = torch.Generator().manual_seed(1)
    if not isinstance(task.features, Tensor):
        raise TypeError("only dense features can be changed here")
    features = task.features.clone()
    features[hidden] = torch.randn(len(hidden), features.size(1), generator=generator)
    touched = torch.zeros(task.num_nodes, dtype=torch.bool)
    touched[hidden] = True
    src, dst = graph.index.long(), graph.row.long()
    keep = (src == dst) | ~(touched[src] | touched[dst])
    src, dst = src[keep], dst[keep]
    if not graphs:  # a graph's edges stay within it: there they are removed only
        partner = torch.randint(task.num_nodes, (len(hidden),), generator=generator)
        src, dst = torch.cat([src, hidden, partner]), torch.cat([dst, partner, hidden])
    pairs = torch.unique(dst * task.num_nodes + src)
    edges = torch.stack([pairs % task.num_nodes, pairs // task.num_nodes])
    rewired = CSRGraph.from_edge_index(edges, task.num_nodes, True)
    return replace(changed, task=task.with_(features=features, graph=rewired))


def _nodes_of_graphs(task: Task, graphs: np.ndarray) -> Tensor:
    """[M] int64 nodes of `graphs`."""
    if task.graph_ptr is None:
        raise TypeError(f"{task.name} is one graph")
    border = task.graph_ptr.tolist()
    return torch.cat([torch.arange(border[graph], border[graph + 1]) for graph in graphs.tolist()])


def renumbered(problem: SplitTask, order: np.ndarray) -> SplitTask:
    """The same problem with nodes in another order: node i was node ``order[i]`` ([N] int64, a permutation).

    Of a graph task the nodes of each graph stay together, and graphs keep their order (see `order_within_graphs`).
    """
    task, split = problem.task, problem.split
    to_old = torch.from_numpy(order)
    number = np.argsort(order)
    to_new = torch.from_numpy(number)
    edges = torch.stack([to_new[task.graph.index.long()], to_new[task.graph.row.long()]])
    moved = task.with_(
        graph=CSRGraph.from_edge_index(edges, task.num_nodes, task.graph.symmetric),
        features=feature_rows(task.features, to_old),
        labels=task.labels if task.kind == "graph" else task.labels[to_old],
    )
    if task.kind == "graph":
        return replace(problem, task=moved)
    parts = {part: number[getattr(split, part)] for part in ("train", "val", "test", "unseen")}
    return replace(problem, task=moved, split=Split(split.id, split.index, **parts, original_ids=order))


def order_within_graphs(task: Task, seed: int) -> np.ndarray:
    """[N] int64, a permutation that shuffles the nodes of every graph of `task` among themselves."""
    rng = np.random.default_rng(seed)
    if task.graph_ptr is None:
        raise TypeError(f"{task.name} is one graph")
    border = task.graph_ptr.tolist()
    return np.concatenate([first + rng.permutation(end - first) for first, end in pairwise(border)])
