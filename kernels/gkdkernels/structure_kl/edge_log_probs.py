"""Local structure: how each node's in-neighbours share its attention, ``LS_i(j) = softmax_j kernel(x_j, x_i)``.

Forward (scores and kernels in `structure_kl.kernel_functions`), over the in-edges of i:

    m_e = measure(x_j, x_i)     s_e = f(m_e)     lse_i = logsumexp s_e     log LS_i(j) = s_e - lse_i

Backward of an upstream g [E], with ``p = exp(log LS)`` and ``r_i = sum g_e`` over the in-edges of i:

    w_e = (g_e - p_e r_i) f'(m_e)     dx_i = sum_{e into i} w_e dm_e/dx_i + sum_{e out of i} w_e dm_e/dx_i

Every measure is symmetric in its two ends, so that on a symmetric graph the second sum runs over the same neighbours as
the first: one pass with ``w_e + w_reverse(e)``, and distances are taken once for an edge and its reverse. A directed
graph takes the second sum over the cached transpose.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.registration import register
from gkdkernels.graph import CSRGraph
from gkdkernels.spmm.cpu import row_max, row_sum
from gkdkernels.structure_kl import cpu
from gkdkernels.structure_kl.edge_rows import (
    EdgeRows,
    UndirectedEdges,
    forward_edges,
    reverse_edges,
    undirected_edges,
    unpack_reverse_edges,
)
from gkdkernels.structure_kl.kernel_functions import (
    MEASURE,
    Sigma,
    check_kernel,
    score,
    slope,
    width_of,
    within_range,
)
from gkdkernels.structure_kl.reference import edge_log_probs_reference

_BACKENDS = declare("edge_log_probs", "reference", "cpu", "triton", "numba")


def edge_log_probs(graph: CSRGraph, x: Tensor, kernel: str, sigma: Sigma, *, backend: str = "auto") -> Tensor:
    """Log-softmax of a kernel of the ends of every edge, over the in-edges of each node.

    Args:
        graph: square, N nodes, E edges, directed or not; self-loops and parallel edges count as edges.
        x: [N, F] float.
        kernel: "laplace-exp", "laplace", "rbf", "rbf-exp", "l2", "cosine" or "poly".
        sigma: width of laplace-exp, laplace and rbf: a positive number, or "auto" for the mean distance over the edges,
            taken as a constant. The other kernels have no width and do not read it.
        backend: "auto", "reference" (any device), "cpu", "triton" or "numba" (extra; only when named).

    Returns:
        [E], fp64 for fp64 and fp32 for all else; a node's only in-edge has 0. Differentiable in `x`, once
        ("reference": any number of times).

    Raises:
        ValueError: an unknown kernel or backend, a bad sigma, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 2], [1, 0, 0, 1]]), 3)
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
        >>> edge_log_probs(graph, x, "cosine", 1.0).exp()  # the edges 1 -> 0, 2 -> 0, 0 -> 1, 2 -> 1
        tensor([0.3302, 0.6698, 0.3302, 0.6698])
    """
    width = check_kernel(kernel, sigma)
    check_features(graph, x, "x")
    chosen = choose("edge_log_probs", backend, _BACKENDS, x)
    if chosen == "reference":
        return edge_log_probs_reference(graph, x, kernel, width)
    transposed = reverse_edges(graph) if x.requires_grad and torch.is_grad_enabled() else []
    once = undirected_edges(graph) if chosen == "cpu" else []
    log_prob: Tensor = _edge_log_probs(x, [*forward_edges(graph)], once, transposed, kernel, width, chosen)[0]
    return log_prob


def _run(
    x: Tensor,
    edges: list[Tensor],
    once: list[Tensor],
    transposed: list[Tensor],
    kernel: str,
    sigma: float | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(log_prob [E], lse [N], measure [E], width [])."""
    rows = EdgeRows(*edges)
    if backend == "triton":
        from gkdkernels.structure_kl import triton

        measure = triton.measure(MEASURE[kernel], x, rows)
        width = width_of(kernel, measure, sigma)
        log_prob, lse = triton.log_softmax(kernel, measure, width, rows)
        return log_prob, lse, measure, width
    wide = _within_range(x, kernel)[0]
    if backend == "numba":
        measure = _measures(backend).measure(MEASURE[kernel], wide, rows)
    else:
        measure = cpu.measure(MEASURE[kernel], wide, rows, UndirectedEdges(*once) if once else None)
    width = width_of(kernel, measure, sigma)
    log_prob = score(kernel, measure, width)
    peak = row_max(log_prob, rows.indptr)
    log_prob = log_prob - peak.index_select(0, rows.row)
    total = row_sum(log_prob.exp(), rows.indptr).log_()
    log_prob -= total.index_select(0, rows.row)
    return log_prob, peak.add_(total), measure, width


def _measures(backend: str) -> Any:
    """The module with `measure` and `gradient` of a backend on the CPU."""
    if backend == "numba":
        from gkdkernels.structure_kl import numba as edge_measure_numba

        return edge_measure_numba
    return cpu


def _run_backward(
    g: Tensor,
    x: Tensor,
    log_prob: Tensor,
    lse: Tensor,
    measure: Tensor,
    width: Tensor,
    edges: list[Tensor],
    transposed: list[Tensor],
    kernel: str,
    backend: str,
) -> Tensor:
    rows, back_rows = EdgeRows(*edges), unpack_reverse_edges(transposed)
    g = g.contiguous()
    if backend == "triton":
        from gkdkernels.structure_kl import triton

        total, untold = triton.row_sum(g, rows), (None, None, None)
        return triton.gradient(kernel, x, measure, width, lse, g, total, untold, rows, back_rows)
    total = row_sum(g, rows.indptr)
    weight = log_prob.exp().mul_(total.index_select(0, rows.row))
    torch.sub(g, weight, out=weight).mul_(slope(kernel, measure, width))
    gradient, kind = _measures(backend).gradient, MEASURE[kernel]
    wide, factor = _within_range(x, kernel)
    reverse = weight.index_select(0, back_rows.edge)
    if back_rows.rows is None:
        out: Tensor = gradient(kind, wide, rows, weight.add_(reverse), measure)
    else:
        out = gradient(kind, wide, rows, weight, measure)
        out += gradient(kind, wide, back_rows.rows, reverse, measure.index_select(0, back_rows.edge))
    return (out if factor is None else out * factor).to(x.dtype)


def _within_range(x: Tensor, kernel: str) -> tuple[Tensor, Tensor | None]:
    """`within_range` of a cosine's features, all others as they are; at least fp32, contiguous."""
    wide = widened(x).contiguous()
    return within_range(wide) if MEASURE[kernel] == "cosine" else (wide, None)


def _fake(x: Tensor, edges: list[Tensor], *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(x.dtype)
    rows = EdgeRows(*edges)
    nodes, size = rows.indptr.size(0) - 1, rows.other.size(0)
    log_prob, lse, measure = (x.new_empty(length, dtype=wide) for length in (size, nodes, size))
    return log_prob, lse, measure, x.new_empty((), dtype=wide)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, edges, _, transposed, ctx.kernel, _, ctx.backend = inputs
    ctx.once = len(inputs[2])
    ctx.save_for_backward(x, *output, *edges, *transposed)


def _backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
    x, log_prob, lse, measure, width, *rest = ctx.saved_tensors
    edges, transposed = rest[: len(EdgeRows._fields)], rest[len(EdgeRows._fields) :]
    grad = _edge_log_probs_backward(g, x, log_prob, lse, measure, width, edges, transposed, ctx.kernel, ctx.backend)
    return grad, [None] * len(edges), [None] * ctx.once, [None] * len(transposed), None, None, None


_edge_log_probs_backward = register(
    "edge_log_probs_backward(Tensor g, Tensor x, Tensor log_prob, Tensor lse, Tensor measure, Tensor width, "
    "Tensor[] edges, Tensor[] transposed, str kernel, str backend) -> Tensor",
    _run_backward,
    fake=lambda g, x, *_: torch.empty_like(x, memory_format=torch.contiguous_format),
)
_edge_log_probs = register(
    "edge_log_probs(Tensor x, Tensor[] edges, Tensor[] once, Tensor[] transposed, str kernel, float? sigma, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
)


def widened(x: Tensor) -> Tensor:
    """`x` in fp32 at least."""
    return x.to(accumulation_dtype(x.dtype))


def check_features(graph: CSRGraph, x: Tensor, name: str) -> None:
    """Refuse what is no feature matrix of a square graph."""
    if graph.num_dst != graph.num_src:
        raise ValueError(f"graph: expected as many rows as columns, got {graph.num_dst} x {graph.num_src}")
    if x.dim() != 2 or x.size(0) != graph.num_dst:
        raise ValueError(f"{name}: expected shape [{graph.num_dst}, F], got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected a float dtype, got {x.dtype}")
    if x.device != graph.device:
        raise ValueError(f"{name}: expected the graph's device {graph.device}, got {x.device}")
