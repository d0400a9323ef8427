"""Neighbour aggregation ``y_i = reduce_{e: j -> i} w_e x_j``, forward and backward.

Backward of the sum is the sum over the transpose, ``dL/dx = A^T dL/dy``, and one dot product per edge for the weight,
``dL/dw_e = <dL/dy_i, x_j>``. Backward of the maximum sends each element to the edge that won it. No path but the
reference keeps an [E, D] tensor, none adds with atomics: every output is one sum in a fixed order.

The plain formula is in `reference.py`; `spmm.cpu`, `spmm.triton` and, for maxima, `spmm.numba` are the fast paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off, autocast_on, promoted
from gkdkernels.core.derivatives import apply_once, once
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.registration import register
from gkdkernels.graph import CSRGraph, check_graph
from gkdkernels.kept import to_keep
from gkdkernels.spmm import cpu as spmm_cpu
from gkdkernels.spmm.reference import max_reference, sum_by_torch_scatter, sum_reference

REDUCES = ("sum", "mean", "max")
_BACKENDS = declare("spmm", "reference", "cpu", "triton", "torch_scatter")
_MAX_BACKENDS = declare("spmm max", *_BACKENDS, "numba", same_bits=("numba",))
_LONG = 1 << 14  # edges: the permutation of fewer takes no longer than a comparison
_WORTH = 1 << 22  # edges x width: with less, hundreds of calls do not gain what loading the compiled loops takes


def spmm(
    graph: CSRGraph,
    x: Tensor,
    weight: Tensor | NodeNorm | None = None,
    reduce: str = "sum",
    *,
    backend: str = "auto",
) -> Tensor:
    """Aggregate the rows of `x` over the in-edges of every destination.

    Args:
        graph: num_dst x num_src, E edges; square or rectangular.
        x: [num_src, D] float, or [K, num_src, D] for K stacked inputs (one launch).
        weight: [E] of `x`'s dtype (under `torch.autocast` both are cast to the wider), `gcn_norm(graph)`, or None for
            ones.
        reduce: "sum"; "mean" divides by the number of in-edges; "max" takes the largest ``w_e x_j``, ties to the
            lowest edge. Rows without edges give 0. Half precision is accumulated in fp32.
        backend: "auto", "reference" (any device), "cpu", "triton", "torch_scatter" (its own autograd and rules), or
            for the maximum "numba" (extra; the bits of "cpu", so that "auto" takes it for large inputs).

    Returns:
        [num_dst, D] or [K, num_dst, D], differentiable once ("reference": any number of times) in `x` and `weight`.

    Raises:
        ValueError: an unknown `reduce` or `backend`, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[1, 2], [0, 0]]), 3)  # 1 -> 0, 2 -> 0
        >>> x = torch.tensor([[1.0], [2.0], [5.0]])
        >>> spmm(graph, x).flatten(), spmm(graph, x, reduce="max").flatten()
        (tensor([7., 0., 0.]), tensor([5., 0., 0.]))
    """
    if autocast_on(x.device):
        if isinstance(weight, Tensor):
            x, weight = promoted(x, weight)
        with autocast_off(x.device):
            return spmm(graph, x, weight, reduce, backend=backend)
    if reduce not in REDUCES:
        raise ValueError(f"reduce: expected one of {', '.join(REDUCES)}, got {reduce!r}")
    _check(graph, x, weight)
    chosen = _chosen(graph, x, reduce, backend)
    wide = accumulation_dtype(x.dtype)
    if reduce == "mean" and x.dtype != wide and chosen not in ("triton", "torch_scatter"):
        y = spmm(graph, x.to(wide), weight.to(wide) if isinstance(weight, Tensor) else weight, "mean", backend=chosen)
        return y.to(x.dtype)
    norm: tuple[Tensor | None, Tensor | None] = (None, None)
    if isinstance(weight, NodeNorm):
        if chosen == "triton" and reduce != "max":
            norm, weight = (weight.left.to(wide), weight.right.to(wide)), None
        else:
            weight = gcn_weight(graph, x.dtype)
    if chosen == "reference":
        y = max_reference(graph, x, weight) if reduce == "max" else sum_reference(graph, x, weight)
    elif chosen == "torch_scatter":
        return sum_by_torch_scatter(graph, x, weight, reduce)
    else:
        layers = x if x.dim() == 3 else x[None]
        if reduce == "mean" and x.dtype != wide:
            norm, weight = _over_degree(
                graph, weight, norm, wide
            )  # a sum in half precision may not fit where the mean does
            reduce = "sum"
        if reduce == "max":
            y = apply_once("spmm", _Max, graph, layers, weight, chosen)
        else:
            y = apply_once("spmm", _Sum, graph, layers, weight, *norm, chosen)
        y = y if x.dim() == 3 else y[0]
    return y / graph.degree.clamp(min=1).to(y.dtype)[:, None] if reduce == "mean" else y


def _over_degree(
    graph: CSRGraph, weight: Tensor | None, norm: tuple[Tensor | None, Tensor | None], wide: torch.dtype
) -> tuple[tuple[Tensor | None, Tensor | None], Tensor | None]:
    """The factors (left, right) of the rows, and the weight, of a mean that is summed up like a sum."""
    inverse = graph.degree.clamp(min=1).to(wide).reciprocal()
    if weight is not None:
        return norm, weight.to(wide) * inverse.index_select(0, graph.row)
    left, right = norm
    return (inverse if left is None else left * inverse, right), None


def _chosen(graph: CSRGraph, x: Tensor, reduce: str, backend: str) -> str:
    if reduce != "max":
        return choose("spmm", backend, _BACKENDS, x)
    # the compiled maximum rounds half precision at other places
    large = graph.num_edges * x.numel() >= _WORTH * graph.num_src
    exist = _MAX_BACKENDS if backend != "auto" or (large and x.element_size() >= 4) else _BACKENDS
    return choose("spmm max", backend, exist, x)


class _Sum(torch.autograd.Function):
    """The weighted sum of ``x: [K, num_src, D]``; backward is the same on the cached transpose."""

    @staticmethod
    def forward(
        ctx: Any,
        graph: CSRGraph,
        x: Tensor,
        weight: Tensor | None,
        left: Tensor | None,
        right: Tensor | None,
        backend: str,
    ) -> Tensor:
        ctx.graph, ctx.backend = graph, backend
        needs_weight = weight is not None and weight.requires_grad
        ctx.save_for_backward(x if needs_weight else None, weight, left, right)
        return sum_rows(graph, x, weight, left, right, backend)

    @staticmethod
    @once("spmm")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        graph, backend = ctx.graph, ctx.backend
        x, weight, left, right = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            transposed_weight = None if weight is None else transposed_edge_values(graph, weight)
            grad_x = sum_rows(graph.transposed.graph, g, transposed_weight, right, left, backend)
        if ctx.needs_input_grad[2]:
            grad_weight = edge_products(graph, x, g, backend)
        return None, grad_x, grad_weight, None, None, None


class _Max(torch.autograd.Function):
    """The maximum of ``x: [K, num_src, D]``; backward follows the edge that won each element."""

    @staticmethod
    def forward(ctx: Any, graph: CSRGraph, x: Tensor, weight: Tensor | None, backend: str) -> Tensor:
        ctx.graph, ctx.backend = graph, backend
        y, arg = _max_rows(graph, x, weight, backend)
        needs_weight = weight is not None and weight.requires_grad
        ctx.save_for_backward(x if needs_weight else None, weight, arg)
        return y

    @staticmethod
    @once("spmm")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        graph, backend = ctx.graph, ctx.backend
        x, weight, arg = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_x = _max_gradient(graph, g, weight, arg, backend)
        if ctx.needs_input_grad[2]:
            grad_weight = _max_edge_gradient(graph, x, g, arg, backend)
        return None, grad_x, grad_weight, None


def _engine(backend: str) -> ModuleType:
    if backend == "triton":
        from gkdkernels.spmm import triton as spmm_triton

        return spmm_triton
    if backend == "numba":
        from gkdkernels.spmm import numba as spmm_numba

        return spmm_numba
    return spmm_cpu


# Eager call, or one custom op under `torch.compile`.


def sum_rows(
    graph: CSRGraph, x: Tensor, weight: Tensor | None, left: Tensor | None, right: Tensor | None, backend: str
) -> Tensor:
    """[K, num_dst, D] ``left_i sum_e w_e right_j x_j``."""
    y: Tensor
    if torch.compiler.is_compiling():
        y = _SUM(graph.parts(), graph.num_src, x, weight, left, right, backend)
    else:
        y = _engine(backend).sum_rows(graph, x, weight, left, right)
    return y


def edge_products(graph: CSRGraph, x: Tensor, g: Tensor, backend: str) -> Tensor:
    """[E] ``sum_k <g_i, x_j>``."""
    out: Tensor
    if torch.compiler.is_compiling():
        out = _EDGE(graph.parts(), graph.num_src, x, g, backend)
    else:
        out = _engine(backend).edge_products(graph, x, g)
    return out


def _max_rows(graph: CSRGraph, x: Tensor, weight: Tensor | None, backend: str) -> tuple[Tensor, Tensor]:
    """[K, num_dst, D] maxima, and the edges that won, -1 in rows without edges."""
    out: tuple[Tensor, Tensor]
    if torch.compiler.is_compiling():
        out = _MAX(graph.parts(), graph.num_src, x, weight, backend)
    else:
        out = _engine(backend).max_rows(graph, x, weight)
    return out


def _max_gradient(graph: CSRGraph, g: Tensor, weight: Tensor | None, arg: Tensor, backend: str) -> Tensor:
    """[K, num_src, D] gradient of the maxima in x."""
    out: Tensor
    if torch.compiler.is_compiling():
        out = _MAX_GRADIENT(graph.parts(transposed=True), graph.num_src, g, weight, arg, backend)
    else:
        out = _engine(backend).max_gradient(graph, g, weight, arg)
    return out


def _max_edge_gradient(graph: CSRGraph, x: Tensor, g: Tensor, arg: Tensor, backend: str) -> Tensor:
    """[E] gradient of the maxima in the weight."""
    out: Tensor
    if torch.compiler.is_compiling():
        out = _MAX_EDGE(graph.parts(), graph.num_src, x, g, arg, backend)
    else:
        out = _engine(backend).max_edge_gradient(graph, x, g, arg)
    return out


def _on_parts(name: str) -> Callable[..., Any]:
    """The backends' function `name`, of a graph's parts."""

    def run(parts: list[Tensor], num_src: int, *rest: Any) -> Any:
        *arguments, backend = rest
        return getattr(_engine(backend), name)(CSRGraph.from_parts(parts, num_src), *arguments)

    return run


def _like_rows(parts: list[Tensor], num_src: int, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.size(0), parts[0].numel() - 1, x.size(2))


def _like_edges(parts: list[Tensor], num_src: int, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(parts[1].numel())


def _like_max(parts: list[Tensor], num_src: int, x: Tensor, weight: Tensor | None, backend: str) -> Any:
    y = _like_rows(parts, num_src, x)
    return y, y.new_empty(y.shape, dtype=_engine(backend).arg_dtype(parts[1].numel()))


_GRAPH = "Tensor[] graph, int num_src"
_SUM = register(
    f"spmm_sum({_GRAPH}, Tensor x, Tensor? weight, Tensor? left, Tensor? right, str backend) -> Tensor",
    _on_parts("sum_rows"),
    fake=_like_rows,
)
_EDGE = register(
    f"spmm_edge_products({_GRAPH}, Tensor x, Tensor g, str backend) -> Tensor",
    _on_parts("edge_products"),
    fake=_like_edges,
)
_MAX = register(
    f"spmm_max({_GRAPH}, Tensor x, Tensor? weight, str backend) -> (Tensor, Tensor)",
    _on_parts("max_rows"),
    fake=_like_max,
)
_MAX_GRADIENT = register(
    f"spmm_max_gradient({_GRAPH}, Tensor g, Tensor? weight, Tensor arg, str backend) -> Tensor",
    _on_parts("max_gradient"),
    fake=lambda parts, num_src, g, *_: g.new_empty(g.size(0), num_src, g.size(2)),
)
_MAX_EDGE = register(
    f"spmm_max_edge_gradient({_GRAPH}, Tensor x, Tensor g, Tensor arg, str backend) -> Tensor",
    _on_parts("max_edge_gradient"),
    fake=_like_edges,
)


def transposed_edge_values(graph: CSRGraph, value: Tensor) -> Tensor:
    """``value: [E]`` in the edge order of the transpose; on a CPU that of the last long constant is kept on the graph.

    What is kept counts for a `value` of the same bits alone: memory changes in ways that torch does not count.
    """
    length = value.numel()
    if value.requires_grad or not value.is_cpu or length < _LONG or torch.compiler.is_compiling():
        return value.detach().index_select(0, graph.transposed.edge)
    kept: tuple[Tensor, Tensor] | None = graph.__dict__.get("_transposed_values")
    if kept is None or kept[0].dtype != value.dtype or not _same(kept[0], value):
        kept = graph.__dict__["_transposed_values"] = _with_transposed(graph, value)
    return kept[1]


@to_keep
def _with_transposed(graph: CSRGraph, value: Tensor) -> tuple[Tensor, Tensor]:
    return value.clone(), value.index_select(0, graph.transposed.edge)


def _same(kept: Tensor, value: Tensor) -> bool:
    """Whether the bits are equal, by numpy: in a third of the time that `torch.equal`, or the permutation, takes."""
    return np.array_equal(_bits(kept).numpy(), _bits(value).numpy())


def _bits(value: Tensor) -> Tensor:
    return value.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()])


@dataclass(frozen=True, slots=True, eq=False)
class NodeNorm:
    """Edge weights ``left_i right_j`` that are never written down edge by edge; made by `gcn_norm`."""

    graph: CSRGraph
    left: Tensor  # [num_dst]
    right: Tensor  # [num_src]


def gcn_weight(graph: CSRGraph, dtype: torch.dtype = torch.float32) -> Tensor:
    """[E] weights of ``D^-1/2 A D^-1/2`` (Kipf & Welling 2017, eq. 2), computed once per graph and dtype.

    The self-loops of the renormalisation trick belong to the graph. A rectangular or directed graph takes the
    degree of the row for the destination and the degree of the column for the source.
    """
    kept: dict[torch.dtype, Tensor] = graph.__dict__.setdefault("_gcn_weight", {})
    if dtype not in kept:
        kept[dtype] = _edge_norms(graph, dtype)
    return kept[dtype]


def gcn_norm(graph: CSRGraph) -> NodeNorm:
    """`gcn_weight` as two node vectors, computed once per graph: a GPU kernel then reads no [E] weight.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]])  # two nodes, an edge, and self-loops
        >>> graph = CSRGraph.from_edge_index(edge_index, 2)
        >>> spmm(graph, torch.tensor([[2.0], [4.0]]), gcn_norm(graph)).flatten()
        tensor([3., 3.])
    """
    kept: NodeNorm | None = graph.__dict__.get("_gcn_norm")
    if kept is None or kept.graph is not graph:  # a copied graph has the norm of the other one
        kept = graph.__dict__["_gcn_norm"] = NodeNorm(graph, *_inverse_roots(graph))
    return kept


@to_keep
def _edge_norms(graph: CSRGraph, dtype: torch.dtype) -> Tensor:
    into, out_of = _inverse_roots(graph)
    return (into[graph.row.long()] * out_of[graph.index.long()]).to(dtype)


@to_keep
def _inverse_roots(graph: CSRGraph) -> tuple[Tensor, Tensor]:
    """fp64 ``degree^-1/2`` of the rows and of the columns; 0 where there are no edges."""
    out_of = torch.bincount(graph.index.long(), minlength=graph.num_src)
    left, right = (torch.where(d > 0, d.double().rsqrt(), 0) for d in (graph.degree, out_of))
    return left, right


def _check(graph: CSRGraph, x: Tensor, weight: Tensor | NodeNorm | None) -> None:
    check_graph(graph)
    if x.dim() not in (2, 3) or x.size(-2) != graph.num_src:
        raise ValueError(f"x: expected shape [{graph.num_src}, D] or [K, {graph.num_src}, D], got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x: expected a float dtype, got {x.dtype}")
    if x.device != graph.device:
        raise ValueError(f"x: expected the graph's device {graph.device}, got {x.device}")
    if weight is None:
        return
    if isinstance(weight, NodeNorm):
        if weight.graph is not graph:
            raise ValueError(f"weight: expected the norm of this graph, got that of {weight.graph}")
        return
    if weight.shape != (graph.num_edges,):
        raise ValueError(f"weight: expected shape [{graph.num_edges}], got {tuple(weight.shape)}")
    if weight.dtype != x.dtype or weight.device != x.device:
        raise ValueError(f"weight: expected {x.dtype} on {x.device} like x, got {weight.dtype} on {weight.device}")
