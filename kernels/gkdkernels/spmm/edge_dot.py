"""One dot product per edge, ``s_e = <y_i, x_j>`` (SDDMM on the pattern of a graph), forward and backward.

Backward is two neighbour sums, ``dL/dy = A(g) x`` and ``dL/dx = A(g)^T y`` with the upstream g as edge weights: the
kernels are those of `spmm`, whose backward in the weight this is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off, autocast_on, promoted
from gkdkernels.core.derivatives import apply_once, once
from gkdkernels.core.dispatch import choose, declare
from gkdkernels.graph import CSRGraph, check_graph
from gkdkernels.spmm import op as spmm_op
from gkdkernels.spmm.reference import edge_dot_reference

_BACKENDS = declare("edge_dot", "reference", "cpu", "triton")


def edge_dot(graph: CSRGraph, y: Tensor, x: Tensor, *, backend: str = "auto") -> Tensor:
    """[E] dot product of the destination's row of `y` and the source's row of `x`, for every edge.

    Args:
        graph: num_dst x num_src, E edges.
        y: [num_dst, D] float; `x`: [num_src, D] of the same dtype (under `torch.autocast` both are cast to the wider).
            Half precision is accumulated in fp32.
        backend: "auto", "reference" (any device), "cpu" or "triton".

    Returns:
        [E] of `x`'s dtype, differentiable once ("reference": any number of times) in `y` and `x`.

    Raises:
        ValueError: an unknown `backend`, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[1, 2], [0, 0]]), 3)  # 1 -> 0, 2 -> 0
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 5.0]])
        >>> edge_dot(graph, x, x)
        tensor([ 3., 10.])
    """
    if autocast_on(x.device):
        y, x = promoted(y, x)
        with autocast_off(x.device):
            return edge_dot(graph, y, x, backend=backend)
    _check(graph, y, x)
    chosen = choose("edge_dot", backend, _BACKENDS, x)
    if chosen == "reference":
        return edge_dot_reference(graph, y, x)
    out: Tensor = apply_once("edge_dot", _Dot, graph, y, x, chosen)
    return out


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: CSRGraph, y: Tensor, x: Tensor, backend: str) -> Tensor:
        ctx.graph, ctx.backend = graph, backend
        ctx.save_for_backward(y, x)
        return spmm_op.edge_products(graph, x[None], y[None], backend)

    @staticmethod
    @once("edge_dot")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        graph, (y, x) = ctx.graph, ctx.saved_tensors
        grad_y = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_y = spmm_op.sum_rows(graph, x[None], g, None, None, ctx.backend)[0]
        if ctx.needs_input_grad[2]:
            turned = spmm_op.transposed_edge_values(graph, g)
            grad_x = spmm_op.sum_rows(graph.transposed.graph, y[None], turned, None, None, ctx.backend)[0]
        return None, grad_y, grad_x, None


def _check(graph: CSRGraph, y: Tensor, x: Tensor) -> None:
    check_graph(graph)
    for name, tensor, rows in (("y", y, graph.num_dst), ("x", x, graph.num_src)):
        if tensor.dim() != 2 or tensor.size(0) != rows or tensor.size(1) != x.size(-1):
            raise ValueError(f"{name}: expected shape [{rows}, D], got {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.dtype != x.dtype:
            raise ValueError(f"{name}: expected one float dtype for y and x, got {y.dtype} and {x.dtype}")
        if tensor.device != graph.device:
            raise ValueError(f"{name}: expected the graph's device {graph.device}, got {tensor.device}")
