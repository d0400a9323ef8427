"""Bytes and floating-point operations of gkdkernels' operators, from the arguments of one call.

Registered operators are seen by name when torch calls them. Others are plain functions on the CPU: `FUNCTIONS` says
under which name each is shown. Gathered rows count once per node, the compulsory traffic, or once per edge where edges
are fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gkdkernels import CSRGraph, Features
from gkdkernels.core import cost
from gkdkernels.core.cost import Cost
from gkdkernels.graph import SparseFeatures
from torch import Tensor

CostOfCall = Callable[..., Cost]
"""Takes what the operator was called with."""


def _experts(x: Tensor, weight: Tensor, index: Tensor, *, backward: bool = False) -> Cost:
    experts, width, out = weight.shape
    size = x.element_size()
    return cost.expert_linear_cost(
        index.size(0), width, out, experts, index.size(1), backward=backward, feature_bytes=size
    )


def _product(a: Tensor, b: Tensor) -> Cost:
    rows, inner, columns = a.size(0), a.size(1), b.size(1)
    return Cost(a.element_size() * (rows * inner + inner * columns + rows * columns), 2 * rows * inner * columns)


def _peers(given: Sequence[Tensor], stacked: bool, *_: Any) -> Cost:
    peers = int(given[0].size(0)) if stacked else len(given)
    return cost.mutual_kl_cost(peers, given[0].size(-2), given[0].size(-1), feature_bytes=given[0].element_size())


def _layer(x: Tensor, weight: Tensor, bias: Tensor, direction: Tensor, k: int) -> Cost:
    experts, width, out = weight.shape
    return cost.experts_cost(x.size(0), width, out, experts, k, feature_bytes=x.element_size())


def _segments(x: Tensor, *rest: Tensor, softmax: bool = False, backward: bool = False) -> Cost:
    segments = rest[-1].numel() - 1
    return cost.segment_cost(
        x.size(0), segments, x.size(1), softmax=softmax, backward=backward, feature_bytes=x.element_size()
    )


def _edges(x: Tensor, other: Tensor, *, backward: bool = False) -> Cost:
    return cost.structure_kl_cost(
        x.size(0), other.numel(), x.size(1),
        backward=backward, feature_bytes=x.element_size(), index_bytes=other.element_size(), reuse=True,
    )  # fmt: skip


REGISTERED: dict[str, CostOfCall] = {
    "gkdkernels::edge_log_probs": lambda x, edges, *_: _edges(x, edges[1]),
    "gkdkernels::edge_log_probs_backward": lambda g, x, *rest: _edges(x, rest[4][1], backward=True),
    "gkdkernels::edge_softmax": lambda x, indptr, row: _segments(x, indptr, softmax=True),
    "gkdkernels::edge_softmax_backward": lambda p, indptr, row, g: _segments(p, indptr, softmax=True, backward=True),
    "gkdkernels::expert_linear": lambda x, weight, bias, index, *_: _experts(x, weight, index),
    "gkdkernels::expert_linear_backward": lambda g, x, weight, bias, index, *_: _experts(
        x, weight, index, backward=True
    ),
    "gkdkernels::matrix_product": _product,
    "gkdkernels::peer_pass": _peers,
    "gkdkernels::rbm_layer": _layer,
    "gkdkernels::route_by_memory": lambda x, memory, k: _route(x, memory, k),
    "gkdkernels::row_kl": lambda student, *_: cost.soft_kl_cost(*student.shape, feature_bytes=student.element_size()),
    "gkdkernels::segment_max": _segments,
    "gkdkernels::segment_softmax": lambda x, ptr: _segments(x, ptr, softmax=True),
    "gkdkernels::segment_softmax_gradient": lambda y, g, ptr: _segments(y, ptr, softmax=True, backward=True),
    "gkdkernels::segment_sum": _segments,
}
"""Name in a trace -> cost. Of others the bytes of their arguments and results are counted."""


def _spmm(
    graph: CSRGraph, x: Tensor, weight: Tensor | None, *_: Any, reduce: str = "sum", backward: bool = False
) -> Cost:
    return cost.spmm_cost(
        graph.num_dst,
        graph.num_src,
        graph.num_edges,
        x.size(-1),
        stacked=x.size(0) if x.dim() == 3 else 1,
        weighted=weight is not None,
        reduce=reduce,
        backward=backward,
        feature_bytes=x.element_size(),
        index_bytes=graph.index.element_size(),
        reuse=graph.num_edges >= (graph.num_dst if backward else graph.num_src),
    )


def _edge_products(graph: CSRGraph, x: Tensor, g: Tensor, *_: Any) -> Cost:
    moved = x.element_size() * (x.numel() + g.numel() + graph.num_edges)
    cells = x.numel() // max(graph.num_src, 1)
    return Cost(moved + graph.num_edges * graph.index.element_size(), 2 * graph.num_edges * cells)


def _gat(graph: CSRGraph, h: Tensor, *, backward: bool = False) -> Cost:
    return cost.gat_cost(
        graph.num_dst, graph.num_src, graph.num_edges, h.size(1), h.size(2),
        backward=backward, feature_bytes=h.element_size(), index_bytes=graph.index.element_size(), reuse=True,
    )  # fmt: skip


def _route(x: Features, memory: Tensor, k: int, **_: Any) -> Cost:
    experts, (nodes, width) = memory.size(0), x.shape
    if isinstance(x, Tensor):
        return cost.route_by_memory_cost(nodes, width, experts, k, feature_bytes=x.element_size())
    sparse = x if isinstance(x, SparseFeatures) else x.sparse
    entries = sparse.graph.num_edges + (0 if isinstance(x, SparseFeatures) else x.dense.numel())
    index = sparse.graph.num_edges * sparse.graph.index.element_size()
    return Cost(4 * (entries + memory.numel()) + index + 12 * nodes * k, 2 * entries * experts)


FUNCTIONS: dict[tuple[str, str], tuple[str, CostOfCall | None]] = {
    ("gkdkernels.spmm.op", "sum_rows"): ("gkdkernels::spmm_sum", _spmm),
    ("gkdkernels.spmm.op", "edge_products"): ("gkdkernels::spmm_edge_products", _edge_products),
    ("gkdkernels.spmm.op", "_max_rows"): (
        "gkdkernels::spmm_max", lambda graph, x, weight, backend: _spmm(graph, x, weight, reduce="max"),
    ),
    ("gkdkernels.spmm.op", "_max_gradient"): (
        "gkdkernels::spmm_max_gradient",
        lambda graph, g, weight, arg, backend: _spmm(graph, g, weight, reduce="max", backward=True),
    ),
    ("gkdkernels.spmm.op", "_max_edge_gradient"): ("gkdkernels::spmm_max_edge_gradient", None),
    ("gkdkernels.gat.op", "_forward"): ("gkdkernels::gat_forward", lambda graph, h, *_: _gat(graph, h)),
    ("gkdkernels.gat.op", "_backward"): (
        "gkdkernels::gat_backward", lambda graph, saved, g, *_: _gat(graph, g, backward=True),
    ),
    ("gkdkernels.experts.routing", "route_by_memory"): ("gkdkernels::route_by_memory", _route),
    ("gkdkernels.experts.routing", "memory_update"): ("gkdkernels::memory_update", None),
    ("gkdkernels.core.dropout", "keyed_dropout"): ("gkdkernels::keyed_dropout", None),
}  # fmt: skip
"""(module, function) -> (name in a trace, cost); without a cost, that of the operators within is counted."""
