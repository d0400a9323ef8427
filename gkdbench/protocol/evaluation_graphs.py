"""From a split task to evaluation graphs: which graph is seen when, and which items are scored where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, feature_rows
from numpy.typing import NDArray
from torch import Tensor

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.data.splits import SPLIT_FAMILIES, SplitTask
from gkdbench.protocol.inputs import Inputs, in_order_of_appearance
from gkdbench.protocol.monitor import ScoredSet

PredictionArray = NDArray[Any]
PRODUCTION = {"ind": 0.2, "tran": 0.8}
"""The production setting mixes unseen and observed test nodes (GLNN, section 5.1): prod = 0.2 ind + 0.8 tran."""


@dataclass(frozen=True, eq=False)
class EvaluationGraphs:
    """Everything the worker gets, with no test label in it, and the test ids the scorer needs.

    A method sees them renumbered (`gkdbench.protocol.renumbering`).

    Args:
        graphs: "observed" for training; "val" (graph tasks); "full", "coldstart", "test" for after ``fit``.
        train, val: items of "observed" (val: of `val_scene`).
        scored_sets: test items per reported setting.
        place: where predictions come in the order of other numbers: column -> [M] int64, the place here of each.
    """

    graphs: Mapping[str, Inputs]
    train: NodeSet
    val_graph: str
    val: NodeSet
    scored_sets: list[ScoredSet]
    place: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def in_order(self, column: str, predictions: PredictionArray, axis: int = 0) -> PredictionArray:
        """Predictions of a column's items as a method returns them, along `axis` in the order of the split's ids."""
        if column not in self.place:
            return predictions
        return np.take(predictions, np.argsort(self.place[column]), axis=axis)

    def test_ids(self, column: str) -> np.ndarray:
        """[n] int64 item ids (the prepared task's numbering) behind a reported setting."""
        return next(w.items.ids.numpy() for w in self.scored_sets if w.column == column)


def setting_of(split: str) -> str | None:
    """What training may see under a split id: "tran", "ind" or "graph"; None for an unknown one."""
    family = SPLIT_FAMILIES.get(split)
    return family.setting if family else None


def make_evaluation_graphs(split_task: SplitTask) -> EvaluationGraphs:
    """Cut `problem` into evaluation graphs, by what its split family lets training see."""
    name = f"{split_task.task.name}/{split_task.split.id}/{split_task.split.index}"
    if split_task.task.kind == "graph":
        return _graph_task_graphs(split_task, name)
    if split_task.task.graph_ptr is not None:
        return _multigraph_nodes_graphs(split_task, name)
    family = SPLIT_FAMILIES[split_task.split.id]
    if family.setting == "tran":
        return _transductive_graphs(split_task, name)
    return _inductive_graphs(split_task, name, cold="coldstart" in family.columns)


def _transductive_graphs(split_task: SplitTask, name: str) -> EvaluationGraphs:
    observed = _whole(split_task, f"{name}/observed")
    return EvaluationGraphs(
        graphs={"observed": observed},
        train=_set(observed.items, split_task.split.train),
        val_graph="observed",
        val=_set(observed.items, split_task.split.val),
        scored_sets=[ScoredSet("tran", "observed", _set(observed.items, split_task.split.test), live=True)],
    )


def _inductive_graphs(split_task: SplitTask, name: str, *, cold: bool) -> EvaluationGraphs:
    """Training sees the subgraph induced on all but the unseen nodes.

    Its nodes are in the order of their ids. The official order (train, val, the rest) would reveal by position which
    nodes are validation nodes, and, as splits list them class by class, their labels.
    """
    split = split_task.split
    seen_test = np.setdiff1d(split.test, split.unseen, assume_unique=True)
    full = _whole(split_task, f"{name}/full")
    seen = np.setdiff1d(np.arange(split_task.task.num_nodes), split.unseen)
    observed = _induced(full, torch.from_numpy(seen), f"{name}/observed")
    unseen = _set(full.items, split.unseen)
    graphs = {"observed": observed, "full": full}
    scored_sets = [ScoredSet("ind", "full", unseen, live=False)]
    if len(seen_test):
        scored_sets.insert(
            0, ScoredSet("tran", "observed", _set(full.items, seen_test).within(observed.items), live=True)
        )
    if cold:
        graphs["coldstart"] = _without_edges_of(full, unseen, f"{name}/coldstart")
        cold_items = NodeSet(graphs["coldstart"].items, unseen.position)
        scored_sets.append(ScoredSet("coldstart", "coldstart", cold_items, live=False))
    return EvaluationGraphs(
        graphs=graphs,
        train=_set(full.items, split.train).within(observed.items),
        val_graph="observed",
        val=_set(full.items, split.val).within(observed.items),
        scored_sets=scored_sets,
    )


def _graph_task_graphs(split_task: SplitTask, name: str) -> EvaluationGraphs:
    """Training sees the training graphs; validation and test graphs are evaluation graphs of their own."""
    whole = _whole(split_task, f"{name}/all")
    graphs = {
        part: _named(whole.take(torch.from_numpy(ids)), f"{name}/{part}")
        for part, ids in (
            ("observed", split_task.split.train),
            ("val", split_task.split.val),
            ("test", split_task.split.test),
        )
    }
    everything = {part: inputs.everything for part, inputs in graphs.items()}
    return EvaluationGraphs(
        graphs=graphs,
        train=everything["observed"],
        val_graph="val",
        val=everything["val"],
        scored_sets=[ScoredSet("graph", "test", everything["test"], live=False)],
    )


def _multigraph_nodes_graphs(split_task: SplitTask, name: str) -> EvaluationGraphs:
    """Node labels on several graphs (PPI): each part of the split is a union of whole graphs."""
    full, borders = _whole(split_task, f"{name}/full"), split_task.task.graph_ptr
    assert borders is not None  # of several graphs
    owner = torch.repeat_interleave(torch.arange(len(borders) - 1), borders.diff())
    graphs = {
        part: _induced(replace(full, parts=owner), torch.from_numpy(np.sort(ids)), f"{name}/{part}")
        for part, ids in (
            ("observed", split_task.split.train),
            ("val", split_task.split.val),
            ("test", split_task.split.test),
        )
    }
    return EvaluationGraphs(
        graphs=graphs,
        train=graphs["observed"].everything,
        val_graph="val",
        val=graphs["val"].everything,
        scored_sets=[ScoredSet("ind", "test", graphs["test"].everything, live=False)],
    )


def _whole(split_task: SplitTask, name: str) -> Inputs:
    task = split_task.task
    nodes = Space(name, torch.arange(task.num_nodes))
    items = nodes if task.kind == "node" else Space(f"{name}/graphs", torch.arange(task.num_items))
    segments = task.graph_ptr if task.kind == "graph" else None
    return Inputs(nodes, items, task.graph, task.features, segments, task.edge_features)


def _named(inputs: Inputs, name: str) -> Inputs:
    nodes, items = Space(name, inputs.space.ids), Space(f"{name}/graphs", inputs.items.ids)
    return Inputs(nodes, items, inputs.graph, inputs.features, inputs.segments, inputs.edge_features)


def _set(space: Space, ids: np.ndarray) -> NodeSet:
    return NodeSet(space, torch.from_numpy(np.ascontiguousarray(ids)))


def kept_edges(inputs: Inputs, keep: Tensor) -> tuple[CSRGraph, Tensor]:
    """The edges of `inputs` that `keep` ([E] bool) marks, nodes as they are, and their ids."""
    n = len(inputs.space)
    return edges_between(inputs, keep, torch.arange(n, device=keep.device), n)


def edges_between(inputs: Inputs, keep: Tensor, number: Tensor, n: int) -> tuple[CSRGraph, Tensor]:
    """The edges marked in `keep` ([E] bool) with nodes renumbered by `number` ([N]), and their ids in new order."""
    ids = keep.nonzero().flatten()
    src, dst = number[inputs.graph.index.long()[ids]], number[inputs.graph.row.long()[ids]]
    order = torch.argsort(dst * max(n, 1) + src, stable=True)
    graph = CSRGraph.from_edge_index(torch.stack([src[order], dst[order]]), n, inputs.graph.symmetric)
    return graph, ids[order]


def _induced(full: Inputs, ids: Tensor, name: str) -> Inputs:
    """The subgraph induced on `ids`, its nodes numbered in their order."""
    number = torch.full((len(full.space),), -1, dtype=torch.int64)
    number[ids] = torch.arange(ids.numel())
    keep = (number[full.graph.index.long()] >= 0) & (number[full.graph.row.long()] >= 0)
    graph, edges = edges_between(full, keep, number, int(ids.numel()))
    space = Space(name, full.space.ids[ids])
    edge_features = None if full.edge_features is None else full.edge_features[edges]
    parts = None if full.parts is None else in_order_of_appearance(full.parts[ids])
    return Inputs(space, space, graph, feature_rows(full.features, ids), None, edge_features, parts)


def _without_edges_of(full: Inputs, nodes: NodeSet, name: str) -> Inputs:
    """`full` with every edge of `nodes` removed, but for their self-loops."""
    cold = torch.zeros(len(full.space), dtype=torch.bool)
    cold[nodes.position] = True
    src, dst = full.graph.index.long(), full.graph.row.long()
    keep = (src == dst) | ~(cold[src] | cold[dst])
    graph, edges = kept_edges(full, keep)
    space = Space(name, full.space.ids)
    edge_features = None if full.edge_features is None else full.edge_features[edges]
    return Inputs(space, space, graph, full.features, None, edge_features)
