"""Softmax of values per edge over the in-edges of each node: ``p_e = exp s_e / sum exp s``, forward and backward.

The edges of a row are a segment, so that the reference and the kernels are those of `segment_softmax`; on a CPU each
head is a pass of row maxima and row sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off
from gkdkernels.core.derivatives import Link, apply_once, link_to, once
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.registration import register
from gkdkernels.graph import CSRGraph, check_graph
from gkdkernels.segment.op import softmax_of_segments
from gkdkernels.segment.reference import edge_softmax_reference
from gkdkernels.spmm.cpu import row_max, row_sum

_BACKENDS = declare("edge_softmax", "reference", "cpu", "triton")


def edge_softmax(graph: CSRGraph, score: Tensor, *, backend: str = "auto") -> Tensor:
    """Softmax of `score` over the in-edges of every destination, head by head.

    Args:
        graph: num_dst x num_src, E edges.
        score: [E] or [E, H] float, in the order of ``graph.index``; -inf gives 0 beside a finite score.
        backend: "auto", "reference" (any device), "cpu" or "triton". Half precision is summed up in fp32.

    Returns:
        As `score`; differentiable once ("reference": any number of times).

    Raises:
        ValueError: an unknown `backend`, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[1, 2, 0], [0, 0, 1]]), 3)  # 1 -> 0, 2 -> 0, 0 -> 1
        >>> edge_softmax(graph, torch.tensor([0.0, 1.0, 7.0]))
        tensor([0.2689, 0.7311, 1.0000])
    """
    check_graph(graph)
    if score.dim() not in (1, 2) or score.size(0) != graph.num_edges or not score.is_floating_point():
        raise ValueError(
            f"score: expected floats of shape [{graph.num_edges}] or [{graph.num_edges}, H], "
            f"got {score.dtype} of shape {tuple(score.shape)}"
        )
    if score.device != graph.device:
        raise ValueError(f"score: expected the graph's device {graph.device}, got {score.device}")
    chosen = choose("edge_softmax", backend, _BACKENDS, score)
    heads = score if score.dim() == 2 else score[:, None]
    with autocast_off(score.device):
        if chosen == "reference":
            p = edge_softmax_reference(graph, heads)
        elif chosen == "triton":
            p = softmax_of_segments("edge_softmax", heads, graph.indptr)
        else:
            p = apply_once("edge_softmax", _RowSoftmax, heads, graph.indptr, graph.row, link_to(heads))
    return p if score.dim() == 2 else p[:, 0]


class _RowSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Tensor, indptr: Tensor, row: Tensor, link: Link | None) -> Tensor:
        p: Tensor = (_FORWARD if torch.compiler.is_compiling() else _forward)(score, indptr, row)
        ctx.save_for_backward(p, indptr, row)
        ctx.link = link
        return p

    @staticmethod
    @once("edge_softmax")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        run = _BACKWARD if torch.compiler.is_compiling() else _backward
        p, indptr, row = ctx.saved_tensors
        return run(p, indptr, row, g), None, None, None


def _forward(score: Tensor, indptr: Tensor, row: Tensor) -> Tensor:
    """[E, H] softmax within rows."""
    out = torch.empty_like(score, memory_format=torch.contiguous_format)
    for head in range(score.size(1)):
        s = _wide(score.detach()[:, head])
        exponent = (s - row_max(s, indptr).index_select(0, row)).exp_()
        out[:, head] = exponent / row_sum(exponent, indptr).index_select(0, row)
    return out


def _backward(p: Tensor, indptr: Tensor, row: Tensor, g: Tensor) -> Tensor:
    """[E, H] ``p (g - sum p g)``, the sum over the row's edges."""
    out = torch.empty_like(p)
    for head in range(p.size(1)):
        share, upstream = _wide(p[:, head]), _wide(g[:, head])
        out[:, head] = share * (upstream - row_sum(share * upstream, indptr).index_select(0, row))
    return out


def _wide(value: Tensor) -> Tensor:
    return value.to(accumulation_dtype(value.dtype)).contiguous()


_FORWARD = register(
    "edge_softmax(Tensor score, Tensor indptr, Tensor row) -> Tensor",
    _forward,
    fake=lambda score, indptr, row: score.new_empty(score.shape),
)
_BACKWARD = register(
    "edge_softmax_backward(Tensor p, Tensor indptr, Tensor row, Tensor g) -> Tensor",
    _backward,
    fake=lambda p, indptr, row, g: p.new_empty(p.shape),
)
