"""Neighbour aggregation ``y_i = reduce_{e: j -> i} w_e x_j``: the reference, and the CPU path.

Forward and backward of the sum are the same operation: ``dL/dx = A^T dL/dy``. The CPU path runs both as
`embedding_bag`, one gather per edge with no [E, D] tensor, the backward on the cached transpose, so that
every output row is one sum in a fixed order: two runs are bitwise equal. The gradient of the weight is one
dot product per edge, taken over chunks of edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.dispatch import choose, declare
from gkdkernels.graph import CSRGraph

REDUCES = ("sum", "mean", "max")
_BACKENDS = declare("spmm", "reference", "cpu")
_CHUNK_ELEMENTS = 1 << 18  # [chunk, D] temporaries of the edge dot product stay in the cache


def spmm(
    graph: CSRGraph, x: Tensor, weight: Tensor | None = None, reduce: str = "sum", *, backend: str = "auto"
) -> Tensor:
    """Aggregate the rows of `x` over the in-edges of every destination.

    Args:
        graph: num_dst x num_src, E edges; square or rectangular.
        x: [num_src, D] float, or [K, num_src, D] for K stacked inputs.
        weight: [E] of `x`'s dtype, or None for ones.
        reduce: "sum"; "mean" divides by the number of in-edges; "max" takes the largest ``w_e x_j``, ties to the
            lowest edge. Rows without edges give 0.
        backend: "auto", "reference" (any device) or "cpu" (sum and mean).

    Returns:
        [num_dst, D] or [K, num_dst, D], differentiable once ("reference": any number of times) in `x` and `weight`.

    Raises:
        ValueError: an unknown `reduce` or `backend`, or a wrong shape, dtype or device.
    """
    if reduce not in REDUCES:
        raise ValueError(f"reduce wants one of {', '.join(REDUCES)}; got {reduce!r}")
    _check(graph, x, weight)
    exist = ("reference",) if reduce == "max" else _BACKENDS
    fast = choose(f"spmm with reduce={reduce!r}", backend, exist, x) == "cpu"
    if reduce == "max":
        return _max_reference(graph, x, weight)
    if fast:
        y: Tensor = _BagSum.apply(graph, x, weight)  # type: ignore[no-untyped-call]
    else:
        y = _sum_reference(graph, x, weight)
    if reduce == "mean":
        y = y / graph.degree.clamp(min=1).to(y.dtype)[:, None]
    return y


def _messages(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    """[..., E, D] ``w_e x_j``, half precisions raised to fp32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    messages = x.to(wide).index_select(-2, graph.index)
    return messages if weight is None else messages * weight.to(wide)[:, None]


def _sum_reference(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    messages = _messages(graph, x, weight)
    y = messages.new_zeros(*x.shape[:-2], graph.num_dst, x.size(-1))
    return y.index_add(-2, graph.row, messages).to(x.dtype)


def _max_reference(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    messages = _messages(graph, x, weight)  # [..., E, D]
    shape = (*x.shape[:-2], graph.num_dst, x.size(-1))
    if graph.num_edges == 0:
        return _sum_reference(graph, x, weight)
    row = graph.row.long()[:, None].expand(messages.shape)
    with torch.no_grad():
        top = messages.new_full(shape, -torch.inf).scatter_reduce(-2, row, messages, "amax")
        wins = (messages == top.gather(-2, row)) | messages.isnan()
        edge = torch.arange(graph.num_edges, device=x.device)[:, None].expand(messages.shape)
        candidate = edge.where(wins, graph.num_edges)
        winner = torch.full(shape, graph.num_edges, device=x.device).scatter_reduce(-2, row, candidate, "amin")
    y = messages.gather(-2, winner.clamp(max=graph.num_edges - 1))
    return torch.where(winner < graph.num_edges, y, 0).to(x.dtype)


def bag_sum(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    """[num_dst, D] weighted row sums of ``x: [num_src, D]`` on the CPU; no autograd."""
    if graph.num_edges == 0 or x.size(1) == 0:
        return x.new_zeros(graph.num_dst, x.size(1))
    return torch.embedding_bag(
        x.detach().contiguous(),
        graph.index,
        graph.indptr,
        mode=0,
        per_sample_weights=None if weight is None else weight.detach().contiguous(),
        include_last_offset=True,
    )[0]


def edge_dot(graph: CSRGraph, x: Tensor, g: Tensor) -> Tensor:
    """[E] ``<g_i, x_j>`` of every edge j -> i, ``x: [num_src, D]``, ``g: [num_dst, D]``; no autograd."""
    out = x.new_empty(graph.num_edges)
    step = max(1, _CHUNK_ELEMENTS // max(1, x.size(1)))
    for start in range(0, graph.num_edges, step):
        edges = slice(start, start + step)
        product = g.index_select(0, graph.row[edges]).mul_(x.index_select(0, graph.index[edges]))
        out[edges] = product.sum(-1, dtype=torch.promote_types(x.dtype, torch.float32))
    return out


class _BagSum(torch.autograd.Function):
    """The weighted sum by `embedding_bag`; backward is the same on the cached transpose."""

    @staticmethod
    def forward(ctx: Any, graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.graph, ctx.shape = graph, x.shape
        needs_weight = weight is not None and weight.requires_grad
        ctx.save_for_backward(x if needs_weight else None, weight)
        if x.dim() == 2:
            return bag_sum(graph, x, weight)
        out = x.new_empty(x.size(0), graph.num_dst, x.size(2))
        for k in range(x.size(0)):
            out[k] = bag_sum(graph, x[k], weight)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        graph, (x, weight) = ctx.graph, ctx.saved_tensors
        grad_x = grad_weight = None
        layers = range(g.size(0)) if g.dim() == 3 else None
        if ctx.needs_input_grad[1]:
            turned = graph.transposed
            turned_weight = None if weight is None else turned_edge_values(graph, weight)
            if layers is None:
                grad_x = bag_sum(turned.graph, g, turned_weight)
            else:
                grad_x = g.new_empty(ctx.shape)
                for k in layers:
                    grad_x[k] = bag_sum(turned.graph, g[k], turned_weight)
        if ctx.needs_input_grad[2]:
            if layers is None:
                grad_weight = edge_dot(graph, x, g)
            else:
                grad_weight = torch.zeros_like(weight)
                for k in layers:
                    grad_weight += edge_dot(graph, x[k], g[k])
        return None, grad_x, grad_weight


def turned_edge_values(graph: CSRGraph, value: Tensor) -> Tensor:
    """``value: [E]`` in the edge order of the transpose; that of the last constant `value` is kept on the graph."""
    if value.requires_grad:
        return value.detach().index_select(0, graph.transposed.edge)
    kept = graph.__dict__.get("_turned")
    # the kept tensor is alive, so that its address is its identity; its version tells of changes in place
    if kept is None or kept[0].data_ptr() != value.data_ptr() or kept[1:3] != (value._version, value.dtype):
        turned = value.index_select(0, graph.transposed.edge)
        kept = graph.__dict__["_turned"] = (value.detach(), value._version, value.dtype, turned)
    found: Tensor = kept[3]
    return found


def gcn_weight(graph: CSRGraph, dtype: torch.dtype = torch.float32) -> Tensor:
    """[E] weights of ``D^-1/2 A D^-1/2`` (Kipf & Welling 2017, eq. 2), computed once per graph and dtype.

    The self-loops of the renormalisation trick belong to the graph. A rectangular or directed graph takes the
    degree of the row for the destination and the degree of the column for the source.
    """
    kept: dict[torch.dtype, Tensor] = graph.__dict__.setdefault("_gcn_weight", {})
    if dtype not in kept:
        into = graph.degree.double().rsqrt()
        out_of = torch.bincount(graph.index.long(), minlength=graph.num_src).double().rsqrt()
        kept[dtype] = (into[graph.row.long()] * out_of[graph.index.long()]).to(dtype)
    return kept[dtype]


def _check(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> None:
    if x.dim() not in (2, 3) or x.size(-2) != graph.num_src:
        raise ValueError(f"x wants shape [{graph.num_src}, D] or [K, {graph.num_src}, D], got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x wants a float dtype, got {x.dtype}")
    if x.device != graph.device:
        raise ValueError(f"x wants the graph's device {graph.device}, got {x.device}")
    if weight is None:
        return
    if weight.shape != (graph.num_edges,):
        raise ValueError(f"weight wants shape [{graph.num_edges}], got {tuple(weight.shape)}")
    if weight.dtype != x.dtype or weight.device != x.device:
        raise ValueError(f"weight wants {x.dtype} on {x.device} as x, got {weight.dtype} on {weight.device}")
