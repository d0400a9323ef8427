"""Inputs: what a model reads. An evaluation graph: the observed, the full or the validation graphs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from gkdkernels.graph import CSRGraph, Features, feature_rows, tensor_rows
from torch import Tensor

from gkdbench.data.nodes import NodeSet, Space


@dataclass(frozen=True, eq=False)
class Inputs:
    """Graph and features under one numbering.

    Args:
        space: numbering of the N nodes.
        items: numbering of what is predicted: `space` itself for node tasks, the G graphs for graph tasks.
        graph: [N x N], self-loops as the split family defines.
        features: [N, D].
        segments: [G + 1] int64 borders of the graphs (graph tasks), else None.
        edge_features: [E, F] in edge order, or None.
        parts: [N] int64, of node tasks on several graphs (PPI) the graph of each node, 0, 1, ... as the nodes in their
            order show them; else None.
    """

    space: Space
    items: Space
    graph: CSRGraph
    features: Features
    segments: Tensor | None = None
    edge_features: Tensor | None = None
    parts: Tensor | None = None

    def arguments(self, module: object) -> tuple[Any, ...]:
        """What `module` is called with: ``(features, graph, segments)``, and edge features where it reads them."""
        if getattr(module, "edge_width", 0) == 0:
            return self.features, self.graph, self.segments
        return self.features, self.graph, self.segments, self.edge_features

    def without_edges(self) -> Inputs:
        """The same items, features and segments on a graph that has no edge."""
        nowhere = self.graph.indptr.new_zeros(len(self.space) + 1)
        graph = CSRGraph.trusted(nowhere, self.graph.index[:0], len(self.space), symmetric=True)
        edge_features = None if self.edge_features is None else self.edge_features[:0]
        return replace(self, graph=graph, edge_features=edge_features)

    @property
    def edge_width(self) -> int:
        """Columns of the edge features; 0 without any."""
        return 0 if self.edge_features is None else int(self.edge_features.size(1))

    @cached_property
    def everything(self) -> NodeSet:
        """All items, in order."""
        return NodeSet(self.items, torch.arange(len(self.items), device=self.graph.device))

    def rows(self, nodes: NodeSet) -> Features:
        """Feature rows [M, D] of `nodes`; foreign positions raise."""
        return feature_rows(self.features, nodes.within(self.space).position)

    def take(self, graphs: Tensor) -> Inputs:
        """The batch of `graphs` ([B] int64 positions) as one block-diagonal Inputs, in that order."""
        if self.segments is None:
            raise ValueError("take(): expected inputs of a graph task, got those of a node task; use rows()")
        start, size = self.segments[graphs], self.segments[graphs + 1] - self.segments[graphs]
        nodes, borders = ranges(start, size)
        indptr = self.graph.indptr.long()
        first, degree = tensor_rows(indptr, nodes), tensor_rows(self.graph.degree, nodes).long()
        edges, edge_borders = ranges(first, degree)
        shift = torch.repeat_interleave(borders[:-1] - start, size)  # old node number -> number in the batch
        index = tensor_rows(self.graph.index, edges).long() + torch.repeat_interleave(shift, degree)
        graph = CSRGraph.trusted(edge_borders, index, int(nodes.numel()), self.graph.symmetric)
        which = hashlib.sha256(graphs.cpu().numpy().tobytes()).hexdigest()[:12]  # another batch is another space
        return Inputs(
            space=Space(f"{self.space.name}[{which}]", tensor_rows(self.space.ids, nodes)),
            items=Space(f"{self.items.name}[{which}]", tensor_rows(self.items.ids, graphs)),
            graph=graph,
            features=feature_rows(self.features, nodes),
            segments=borders,
            edge_features=None if self.edge_features is None else tensor_rows(self.edge_features, edges),
        )

    @property
    def num_parts(self) -> int:
        """How many graphs `parts` names; 1 without it."""
        return 1 if self.parts is None or not self.parts.numel() else int(self.parts.max()) + 1

    def take_parts(self, graphs: Tensor) -> tuple[Inputs, Tensor]:
        """The graphs `graphs` ([B] int64) of a node task on several, as one block-diagonal Inputs of a node task.

        Returns:
            The batch, and the position here of each of its nodes ([M] int64).
        """
        whole, order = self._by_part
        assert whole.segments is not None  # _by_part sets it
        batch = whole.take(graphs)
        first, size = whole.segments[graphs], whole.segments.diff()[graphs]
        one = replace(batch, items=batch.space, segments=None)
        return one, order[ranges(first, size)[0]]

    @cached_property
    def _by_part(self) -> tuple[Inputs, Tensor]:
        """The same nodes, those of a graph together, as inputs of a graph task; and the position here of each."""
        if self.parts is None:
            raise ValueError("take_parts(): expected inputs of a node task on several graphs, got one graph")
        order = torch.argsort(self.parts, stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(order.numel(), device=order.device)
        edges, indptr = ranges(self.graph.indptr.long()[order], self.graph.degree.long()[order])
        sizes = torch.bincount(self.parts, minlength=self.num_parts)
        graphs = Space(f"{self.space.name}/graphs", torch.arange(self.num_parts, device=order.device))
        whole = Inputs(
            space=Space(f"{self.space.name} by graph", self.space.ids[order]),
            items=graphs,
            graph=CSRGraph(indptr, number[self.graph.index.long()[edges]], order.numel(), self.graph.symmetric),
            features=feature_rows(self.features, order),
            segments=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            edge_features=None if self.edge_features is None else self.edge_features[edges],
        )
        return whole, order

    def to(self, device: torch.device | str) -> Inputs:
        """A copy on `device`."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        space = Space(self.space.name, self.space.ids.to(device))
        items = space if self.items is self.space else Space(self.items.name, self.items.ids.to(device))
        return Inputs(
            space,
            items,
            self.graph.to(device),
            self.features.to(device),
            move(self.segments),
            move(self.edge_features),
            move(self.parts),
        )


def ranges(start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenated ranges ``start[i] .. start[i] + size[i]`` and their borders [len + 1]."""
    borders = torch.zeros(size.numel() + 1, dtype=torch.int64, device=size.device)
    borders[1:] = size.cumsum(0)
    total = int(borders[-1])
    offset = torch.repeat_interleave(start - borders[:-1], size, output_size=total)
    return torch.arange(total, device=size.device) + offset, borders


def in_order_of_appearance(kinds: Tensor) -> Tensor:
    """[N] int64, `kinds` under new numbers: 0 for the first that occurs, 1 for the next one, and so on.

    Example:
        >>> in_order_of_appearance(torch.tensor([7, 3, 7, 5]))
        tensor([0, 1, 0, 2])
    """
    found, kind = torch.unique(kinds, return_inverse=True)
    place = torch.arange(kinds.numel(), device=kinds.device)
    first = place.new_full((found.numel(),), kinds.numel()).scatter_reduce(0, kind, place, "amin")
    return torch.argsort(torch.argsort(first))[kind]
