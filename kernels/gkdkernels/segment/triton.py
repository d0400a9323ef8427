# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Readouts on GPUs. A segment is a row of a graph whose edges are the segment's own rows: sums and maxima are those of
`spmm.triton`, long segments in chunks. The softmax has kernels of its own, one program for a segment and its columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.row_tiles_triton import on_device, row_blocks
from gkdkernels.graph import CSRGraph
from gkdkernels.spmm import triton as spmm_triton


@triton.jit
def segment_softmax_fwd_tile(ptr, x, y, WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """``y: [N, D]`` softmax of the columns of ``x: [N, D]`` within a segment: a pass to sum, a pass to write."""
    wide: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    segment = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    lo, hi = tl.load(ptr + segment).to(tl.int64), tl.load(ptr + segment + 1).to(tl.int64)
    peak = tl.full((BLOCK_D,), -float("inf"), wide)
    total = tl.zeros((BLOCK_D,), wide)
    for start in range(lo, hi, BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        mask = (row < hi)[:, None] & (d < WIDTH)[None, :]
        value = tl.load(x + row[:, None] * WIDTH + d[None, :], mask=mask, other=-float("inf")).to(wide)
        value = tl.where((d < WIDTH)[None, :], value, 0.0)
        higher = tl.maximum(peak, tl.max(value, 0))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # as long as all rows are -inf
        total = total * tl.exp(peak - base) + tl.sum(tl.exp(value - base[None, :]), 0)
        peak = higher
    for start in range(lo, hi, BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        mask = (row < hi)[:, None] & (d < WIDTH)[None, :]
        at = row[:, None] * WIDTH + d[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(wide)
        tl.store(y + at, (tl.exp(value - peak[None, :]) / total[None, :]).to(y.dtype.element_ty), mask=mask)


@triton.jit
def segment_softmax_bwd_tile(ptr, y, g, grad, WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """``grad = y (g - sum g y)``, the sum over the segment's rows."""
    wide: tl.constexpr = tl.float64 if y.dtype.element_ty == tl.float64 else tl.float32
    segment = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    lo, hi = tl.load(ptr + segment).to(tl.int64), tl.load(ptr + segment + 1).to(tl.int64)
    dot = tl.zeros((BLOCK_D,), wide)
    for start in range(lo, hi, BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        mask = (row < hi)[:, None] & (d < WIDTH)[None, :]
        at = row[:, None] * WIDTH + d[None, :]
        p = tl.load(y + at, mask=mask, other=0.0).to(wide)
        dot += tl.sum(p * tl.load(g + at, mask=mask, other=0.0).to(wide), 0)
    for start in range(lo, hi, BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        mask = (row < hi)[:, None] & (d < WIDTH)[None, :]
        at = row[:, None] * WIDTH + d[None, :]
        p = tl.load(y + at, mask=mask, other=0.0).to(wide)
        upstream = tl.load(g + at, mask=mask, other=0.0).to(wide)
        tl.store(grad + at, (p * (upstream - dot[None, :])).to(grad.dtype.element_ty), mask=mask)


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """[G, D] sums."""
    return spmm_triton.sum_rows(_as_graph(x, ptr), x[None])[0]


def segment_max(x: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """[G, D] maxima, and the int64 rows that won, -1 in empty segments."""
    y, row = spmm_triton.max_rows(_as_graph(x, ptr), x[None], None)
    return y[0], row[0].long()


def segment_softmax(x: Tensor, ptr: Tensor) -> Tensor:
    """[N, D] softmax within segments."""
    x = x.contiguous()
    y = torch.empty_like(x)
    if y.numel():
        blocks = row_blocks(x.size(1), most=64)
        with on_device(x):
            segment_softmax_fwd_tile[(ptr.numel() - 1, triton.cdiv(x.size(1), blocks.width))](
                ptr, x, y, WIDTH=x.size(1), BLOCK_N=blocks.edges, BLOCK_D=blocks.width, num_warps=blocks.num_warps
            )
    return y


def segment_softmax_gradient(y: Tensor, g: Tensor, ptr: Tensor) -> Tensor:
    """[N, D] gradient of the softmax for the upstream ``g: [N, D]``."""
    y, g = y.contiguous(), g.contiguous()
    grad = torch.empty_like(y)
    if grad.numel():
        blocks = row_blocks(y.size(1), most=64)
        with on_device(y):
            segment_softmax_bwd_tile[(ptr.numel() - 1, triton.cdiv(y.size(1), blocks.width))](
                ptr, y, g, grad, WIDTH=y.size(1), BLOCK_N=blocks.edges, BLOCK_D=blocks.width,
                num_warps=blocks.num_warps,
            )  # fmt: skip
    return grad


def _as_graph(x: Tensor, ptr: Tensor) -> CSRGraph:
    return CSRGraph.trusted(ptr, torch.arange(x.size(0), dtype=ptr.dtype, device=x.device), x.size(0))
