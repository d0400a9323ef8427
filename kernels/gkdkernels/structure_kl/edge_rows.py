"""Edges grouped by node, in both directions, as the plain tensors that operators on edges take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gkdkernels.graph import CSRGraph


class EdgeRows(NamedTuple):
    """One direction of a square graph: edge e joins ``row[e]``, among whose edges it stands, and ``other[e]``."""

    indptr: Tensor  # [N + 1]
    other: Tensor  # [E]
    row: Tensor  # [E]
    hub_row: Tensor  # [H] see `graph.Hubs`
    hub_first: Tensor  # [H + 1]
    hub_chunk: Tensor  # [C]


class ReverseEdges(NamedTuple):
    """The other direction: its edge e is edge ``edge[e]`` of the forward one.

    Without `rows` the graph is its own transpose, row by row, and ``edge[e]`` is the reverse of e.
    """

    edge: Tensor  # [E] int64
    rows: EdgeRows | None


class UndirectedEdges(NamedTuple):
    """Every edge of a symmetric graph and its reverse as one: what is the same in both directions is computed once."""

    ends: Tensor  # [2 U] row and other of the edges with row <= other, one after the other
    place: Tensor  # [E] int64, which of the U an edge is, or its reverse


def forward_edges(graph: CSRGraph) -> EdgeRows:
    """The in-edges of every node."""
    hubs = graph.hubs
    return EdgeRows(graph.indptr, graph.index, graph.row, hubs.row, hubs.first, hubs.chunk)


def reverse_edges(graph: CSRGraph) -> list[Tensor]:
    """The out-edges of every node, flat for an operator's list argument: ``[edge]`` or ``[edge, *rows]``."""
    transposed = graph.transposed
    return [transposed.edge] if _is_paired(graph) else [transposed.edge, *forward_edges(transposed.graph)]


def unpack_reverse_edges(tensors: Sequence[Tensor]) -> ReverseEdges:
    """What `reverse_edges` packed."""
    edge, *rest = tensors
    return ReverseEdges(edge, EdgeRows(*rest) if rest else None)


def _is_paired(graph: CSRGraph) -> bool:
    """Whether edge e of the transpose is the reverse of edge e: symmetric, with sorted rows. Looked up once."""
    transposed = graph.transposed.graph
    kept: bool | None = True if transposed is graph else graph.__dict__.get("_paired")
    if kept is None:
        if graph.symmetric is False or torch.compiler.is_compiling():
            return False  # a trace cannot look at data; two passes are right for any graph
        kept = torch.equal(transposed.indptr, graph.indptr) and torch.equal(transposed.index, graph.index)
        graph.__dict__["_paired"] = kept
    return kept


def undirected_edges(graph: CSRGraph) -> list[Tensor]:
    """`UndirectedEdges` of a graph that is its own transpose, for an operator's list argument; else empty. Made once.

    A graph that is not said to be symmetric counts when `reverse_edges` has found it to be.
    """
    if torch.compiler.is_compiling() or not (graph.symmetric or graph.__dict__.get("_paired")) or not _is_paired(graph):
        return []
    kept: UndirectedEdges | None = graph.__dict__.get("_halves")
    if kept is None:
        first = graph.row <= graph.index
        own, reverse = first.cumsum(0) - 1, graph.transposed.edge
        place = torch.where(first, own, own.index_select(0, reverse))
        kept = UndirectedEdges(torch.stack((graph.row[first], graph.index[first]), 1).flatten(), place)
        graph.__dict__["_halves"] = kept
    return [*kept]
