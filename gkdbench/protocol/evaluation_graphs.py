"""From a split task to evaluation graphs: which graph is seen when, and which items are scored where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, feature_rows
from torch import Tensor

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.data.splits import SPLIT_FAMILIES, SplitTask
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.monitor import ScoredSet

PRODUCTION = {"ind": 0.2, "tran": 0.8}
"""The production setting mixes unseen and observed test nodes (GLNN, section 5.1): prod = 0.2 ind + 0.8 tran."""


@dataclass(frozen=True, eq=False)
class EvaluationGraphs:
    """Everything the worker gets, with no test label in it, and the test ids the scorer needs.

    Args:
        scenes: "observed" for training; "val" (graph tasks); "full", "coldstart", "test" for after ``fit``.
        train, val: items of "observed" (val: of `val_scene`).
        watches: test items per reported setting.
    """

    scenes: Mapping[str, Inputs]
    train: NodeSet
    val_scene: str
    val: NodeSet
    watches: list[ScoredSet]

    def test_ids(self, column: str) -> np.ndarray:
        """[n] int64 item ids (the prepared task's numbering) behind a reported setting."""
        return next(w.items.ids.numpy() for w in self.watches if w.column == column)


def setting_of(split: str) -> str | None:
    """What training may see under a split id: "tran", "ind" or "graph"; None for an unknown one."""
    family = SPLIT_FAMILIES.get(split)
    return family.setting if family else None


def make_evaluation_graphs(problem: SplitTask) -> EvaluationGraphs:
    """Cut `problem` into evaluation graphs, by what its split family lets training see."""
    name = f"{problem.task.name}/{problem.split.id}/{problem.split.index}"
    if problem.task.kind == "graph":
        return _stage_graphs(problem, name)
    if problem.task.graph_ptr is not None:
        return _stage_multigraph_nodes(problem, name)
    family = SPLIT_FAMILIES[problem.split.id]
    if family.setting == "tran":
        return _stage_transductive(problem, name)
    return _stage_inductive(problem, name, cold="coldstart" in family.columns)


def _stage_transductive(problem: SplitTask, name: str) -> EvaluationGraphs:
    scene = _whole(problem, f"{name}/observed")
    return EvaluationGraphs(
        scenes={"observed": scene},
        train=_set(scene.items, problem.split.train),
        val_scene="observed",
        val=_set(scene.items, problem.split.val),
        watches=[ScoredSet("tran", "observed", _set(scene.items, problem.split.test), live=True)],
    )


def _stage_inductive(problem: SplitTask, name: str, *, cold: bool) -> EvaluationGraphs:
    """Training sees the subgraph induced on all but the unseen nodes.

    Its nodes are in the order of their ids. The official order (train, val, the rest) would reveal by position which
    nodes are validation nodes, and, as splits list them class by class, their labels.
    """
    split = problem.split
    seen_test = np.setdiff1d(split.test, split.unseen, assume_unique=True)
    full = _whole(problem, f"{name}/full")
    seen = np.setdiff1d(np.arange(problem.task.num_nodes), split.unseen)
    observed = _induced(full, torch.from_numpy(seen), f"{name}/observed")
    unseen = _set(full.items, split.unseen)
    scenes = {"observed": observed, "full": full}
    watches = [ScoredSet("ind", "full", unseen, live=False)]
    if len(seen_test):
        watches.insert(0, ScoredSet("tran", "observed", _set(full.items, seen_test).within(observed.items), live=True))
    if cold:
        scenes["coldstart"] = _without_edges_of(full, unseen, f"{name}/coldstart")
        cold_items = NodeSet(scenes["coldstart"].items, unseen.position)
        watches.append(ScoredSet("coldstart", "coldstart", cold_items, live=False))
    return EvaluationGraphs(
        scenes=scenes,
        train=_set(full.items, split.train).within(observed.items),
        val_scene="observed",
        val=_set(full.items, split.val).within(observed.items),
        watches=watches,
    )


def _stage_graphs(problem: SplitTask, name: str) -> EvaluationGraphs:
    """Training sees the training graphs; validation and test graphs are evaluation graphs of their own."""
    whole = _whole(problem, f"{name}/all")
    scenes = {
        scene: _named(whole.take(torch.from_numpy(ids)), f"{name}/{scene}")
        for scene, ids in (("observed", problem.split.train), ("val", problem.split.val), ("test", problem.split.test))
    }
    everything = {scene: inputs.everything for scene, inputs in scenes.items()}
    return EvaluationGraphs(
        scenes=scenes,
        train=everything["observed"],
        val_scene="val",
        val=everything["val"],
        watches=[ScoredSet("graph", "test", everything["test"], live=False)],
    )


def _stage_multigraph_nodes(problem: SplitTask, name: str) -> EvaluationGraphs:
    """Node labels on several graphs (PPI): each part of the split is a union of whole graphs."""
    full = _whole(problem, f"{name}/full")
    scenes = {
        scene: _induced(full, torch.from_numpy(np.sort(ids)), f"{name}/{scene}")
        for scene, ids in (("observed", problem.split.train), ("val", problem.split.val), ("test", problem.split.test))
    }
    return EvaluationGraphs(
        scenes=scenes,
        train=scenes["observed"].everything,
        val_scene="val",
        val=scenes["val"].everything,
        watches=[ScoredSet("ind", "test", scenes["test"].everything, live=False)],
    )


def _whole(problem: SplitTask, name: str) -> Inputs:
    task = problem.task
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
    return _edges(inputs, keep, torch.arange(n, device=keep.device), n)


def _edges(inputs: Inputs, keep: Tensor, number: Tensor, n: int) -> tuple[CSRGraph, Tensor]:
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
    graph, edges = _edges(full, keep, number, int(ids.numel()))
    space = Space(name, full.space.ids[ids])
    edge_features = None if full.edge_features is None else full.edge_features[edges]
    return Inputs(space, space, graph, feature_rows(full.features, ids), None, edge_features)


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
