"""Items get new numbers before a method sees them: neither an id nor a place in a graph says anything about a label.

Files list graphs class by class, and splits list nodes so. The new order is drawn from a key that the process of the
method does not have; predictions are put back into the split's own order when they are scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from gkdkernels.graph import feature_rows
from numpy.typing import NDArray
from torch import Tensor

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.data.splits import SplitTask
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, edges_between
from gkdbench.protocol.inputs import Inputs, in_order_of_appearance


@dataclass(frozen=True, eq=False)
class Renumbered:
    """Evaluation graphs under new numbers, and the way back.

    Args:
        graphs: what a method may see, nodes and items in the order of their new numbers.
        place: "train", "val" and every scored column -> [M] int64, for each of its items in the new order the place
            that it has in the original one.
    """

    graphs: EvaluationGraphs
    place: Mapping[str, NDArray[np.int64]]


def renumbered(evaluation_graphs: EvaluationGraphs, split_task: SplitTask) -> Renumbered:
    """Draw new numbers for all nodes and items of `split_task`, the same for every method and seed.

    The key is the hash of the split, which covers the ids of all parts: nothing that a method is handed tells it.
    """
    numbers = _Numbers.draw(split_task)
    moved = {name: _Moved.of(inputs, numbers) for name, inputs in evaluation_graphs.graphs.items()}
    place: dict[str, NDArray[np.int64]] = {}
    train, place["train"] = moved["observed"].items(evaluation_graphs.train)
    val, place["val"] = moved[evaluation_graphs.val_graph].items(evaluation_graphs.val)
    scored_sets = []
    for scored_set in evaluation_graphs.scored_sets:
        items, place[scored_set.column] = moved[scored_set.graph_name].items(scored_set.items)
        scored_sets.append(replace(scored_set, items=items))
    graphs = replace(
        evaluation_graphs,
        graphs={name: one.inputs for name, one in moved.items()},
        train=train,
        val=val,
        scored_sets=scored_sets,
    )
    return Renumbered(graphs, place)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Id -> new number: of nodes [N] and of items (nodes or graphs) [M], int64."""

    nodes: Tensor
    items: Tensor

    @classmethod
    def draw(cls, split_task: SplitTask) -> _Numbers:
        task = split_task.task
        digest = hashlib.sha256(f"numbers of items/{split_task.split.hash}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        nodes = torch.randperm(task.num_nodes, generator=generator)
        if task.kind == "node":
            return cls(nodes, nodes)
        items = torch.randperm(task.num_items, generator=generator)
        assert task.graph_ptr is not None  # of a graph task
        owner = torch.repeat_interleave(items, task.graph_ptr.diff())  # new number of each node's graph
        order = torch.argsort(owner * task.num_nodes + nodes)
        return cls(_inverse(order), items)


@dataclass(frozen=True, eq=False)
class _Moved:
    """One evaluation graph in the order of the new numbers.

    Args:
        position: [M] old position of an item -> its new one.
    """

    inputs: Inputs
    position: Tensor

    @classmethod
    def of(cls, inputs: Inputs, numbers: _Numbers) -> _Moved:
        node_ids = numbers.nodes[inputs.space.ids]
        order = torch.argsort(node_ids)
        keep = torch.ones(inputs.graph.num_edges, dtype=torch.bool)
        graph, edges = edges_between(inputs, keep, _inverse(order), len(inputs.space))
        space = Space(inputs.space.name, node_ids[order])
        items, segments, item_order = space, inputs.segments, order
        if inputs.segments is not None:
            item_ids = numbers.items[inputs.items.ids]
            item_order = torch.argsort(item_ids)
            items = Space(inputs.items.name, item_ids[item_order])
            sizes = inputs.segments.diff()[item_order]
            segments = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        edge_features = None if inputs.edge_features is None else inputs.edge_features[edges]
        features = feature_rows(inputs.features, order)
        parts = None if inputs.parts is None else in_order_of_appearance(inputs.parts[order])
        return cls(Inputs(space, items, graph, features, segments, edge_features, parts), _inverse(item_order))

    def items(self, old: NodeSet) -> tuple[NodeSet, NDArray[np.int64]]:
        """`old` in this graph, by ascending new position, and the place of each in `old`."""
        position, place = torch.sort(self.position[old.position])
        return NodeSet(self.inputs.items, position), place.numpy()


def _inverse(order: Tensor) -> Tensor:
    """[N] place of every element in `order`, a permutation."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel())
    return inverse
