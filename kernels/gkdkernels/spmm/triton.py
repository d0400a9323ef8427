# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Neighbour aggregation on GPUs: row sums, row maxima, and one dot product per edge.

Every kernel gathers rows of features once per edge and writes each output once. Backward of the sum is the sum over
the transpose; backward of the maximum is the same with a test whether the edge won (`arg`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.row_tiles_triton import (
    hub_arguments,
    layer_and_columns,
    merge_sum,
    on_device,
    row_blocks,
    span,
)
from gkdkernels.graph import CSRGraph

_NONE = tl.constexpr(2**31 - 1)


# backward launches the kernels of the sum on the transpose, and the readouts of `segment` those of sum and maximum
@triton.jit
def spmm_fwd_row_sum(
    indptr,  # [R + 1]
    index,  # [E] gathered row of each edge
    weight,  # [E] or None
    left,  # [R] factor of the output row, or None
    right,  # [S] factor of the gathered row, or None
    arg,  # [K, S, D] edge that won each element, or None: every edge counts
    edge,  # [E] edge ids as stored in `arg`; only with `arg`
    hubs,
    num_chunks,
    x,  # [K, S, D]
    y,  # [K, R, D]
    partial,  # [K, chunks, D] sums of the hubs' chunks, or None
    num_rows,
    num_src,
    WIDTH: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """``y[k, i] = left_i sum_e w_e right_j x[k, j]``, over the edges that won where `arg` is given."""
    acc_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    layer, d = layer_and_columns(WIDTH, BLOCK_D)  # [BLOCK_D]
    row, lo, hi, is_chunk, has_work = span(program, indptr, hubs, num_chunks, HUB)
    acc = tl.zeros((BLOCK_E, BLOCK_D), acc_dtype)
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)  # [BLOCK_E]
        live = e < hi
        j = tl.load(index + e, mask=live, other=0).to(tl.int64)
        at = (layer * num_src + j)[:, None] * WIDTH + d[None, :]
        mask = live[:, None] & (d < WIDTH)[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(acc_dtype)  # [BLOCK_E, BLOCK_D]
        if weight is not None:
            value *= tl.load(weight + e, mask=live, other=0.0).to(acc_dtype)[:, None]
        if right is not None:
            value *= tl.load(right + j, mask=live, other=0.0).to(acc_dtype)[:, None]
        if arg is not None:
            name = tl.load(edge + e, mask=live, other=0)
            won = tl.load(arg + at, mask=mask, other=-1) == name[:, None]
            value = tl.where(won, value, 0.0)
        acc += value
    total = tl.sum(acc, 0)  # [BLOCK_D]
    if partial is not None:
        slot = (layer * num_chunks + program) * WIDTH + d
        tl.store(partial + slot, total, mask=(d < WIDTH) & is_chunk)
    if left is not None:
        total *= tl.load(left + row).to(acc_dtype)
    out = (layer * num_rows + row) * WIDTH + d
    tl.store(y + out, total.to(y.dtype.element_ty), mask=(d < WIDTH) & has_work & (is_chunk == 0))


@triton.jit
def spmm_fwd_merge_sum(hubs, num_chunks, left, partial, y, num_rows, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """`merge_sum` of the chunks that `spmm_fwd_row_sum` left."""
    merge_sum(hubs, num_chunks, left, partial, y, num_rows, WIDTH, BLOCK_D)


@triton.jit
def spmm_fwd_row_max(
    indptr,  # [R + 1]
    index,  # [E]
    weight,  # [E] or None
    hubs,
    num_chunks,
    x,  # [K, S, D]
    y,  # [K, R, D]
    arg,  # [K, R, D] the edge that won, -1 without edges
    partial,  # [K, chunks, D] the same two for the hubs' chunks, or None
    partial_arg,
    num_rows,
    num_src,
    WIDTH: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """``y[k, i] = max_e w_e x[k, j]``; NaN beats every number, ties go to the lowest edge, rows without edges are 0."""
    acc_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    layer, d = layer_and_columns(WIDTH, BLOCK_D)
    row, lo, hi, is_chunk, has_work = span(program, indptr, hubs, num_chunks, HUB)
    best = tl.full((BLOCK_E, BLOCK_D), -float("inf"), acc_dtype)
    seen = tl.full((BLOCK_E, BLOCK_D), _NONE, tl.int32)  # offset from lo of each lane's best
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < hi
        j = tl.load(index + e, mask=live, other=0).to(tl.int64)
        mask = live[:, None] & (d < WIDTH)[None, :]
        value = tl.load(x + (layer * num_src + j)[:, None] * WIDTH + d[None, :], mask=mask, other=0.0).to(acc_dtype)
        if weight is not None:
            value *= tl.load(weight + e, mask=live, other=0.0).to(acc_dtype)[:, None]
        better = (value > best) | ((value != value) & (best == best)) | (seen == _NONE)
        better = better & mask
        offset = (e - lo).to(tl.int32)[:, None]
        seen = tl.where(better, offset, seen)
        best = tl.where(better, value, best)
    nan = best != best
    some_nan = tl.max(nan.to(tl.int32), 0) > 0  # [BLOCK_D]
    top = tl.max(tl.where(nan, -float("inf"), best), 0)
    wins = tl.where(some_nan[None, :], nan, best == top[None, :])
    first = tl.min(tl.where(wins, seen, _NONE), 0)
    found = first != _NONE
    top = tl.where(found, tl.where(some_nan, float("nan"), top), 0.0)
    winner = tl.where(found, lo + first, -1)
    if partial is not None:
        slot = (layer * num_chunks + program) * WIDTH + d
        tl.store(partial + slot, top, mask=(d < WIDTH) & is_chunk)
        tl.store(partial_arg + slot, winner.to(partial_arg.dtype.element_ty), mask=(d < WIDTH) & is_chunk)
    out = (layer * num_rows + row) * WIDTH + d
    mask = (d < WIDTH) & has_work & (is_chunk == 0)
    tl.store(y + out, top.to(y.dtype.element_ty), mask=mask)
    tl.store(arg + out, winner.to(arg.dtype.element_ty), mask=mask)


@triton.jit
def spmm_fwd_merge_max(
    hubs, num_chunks, partial, partial_arg, y, arg, num_rows, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The best of one hub's chunks, which are never empty; an earlier chunk wins a tie."""
    hub = tl.program_id(0)
    layer, d = layer_and_columns(WIDTH, BLOCK_D)
    row = tl.load(hubs[0] + hub)
    first = tl.load(hubs[1] + hub)
    slot = (layer * num_chunks + first) * WIDTH + d
    top = tl.load(partial + slot, mask=d < WIDTH, other=0.0)
    winner = tl.load(partial_arg + slot, mask=d < WIDTH, other=-1)
    for chunk in range(first + 1, tl.load(hubs[1] + hub + 1)):
        slot = (layer * num_chunks + chunk) * WIDTH + d
        value = tl.load(partial + slot, mask=d < WIDTH, other=0.0)
        better = (value > top) | ((value != value) & (top == top))
        winner = tl.where(better, tl.load(partial_arg + slot, mask=d < WIDTH, other=-1), winner)
        top = tl.where(better, value, top)
    out = (layer * num_rows + row) * WIDTH + d
    tl.store(y + out, top.to(y.dtype.element_ty), mask=d < WIDTH)
    tl.store(arg + out, winner, mask=d < WIDTH)


@triton.jit
def spmm_bwd_edge_product(
    indptr,  # [R + 1]
    index,  # [E]
    arg,  # [K, R, D] or None
    hubs,
    num_chunks,
    x,  # [K, S, D]
    g,  # [K, R, D]
    out,  # [E]
    num_layers,
    num_rows,
    num_src,
    WIDTH: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """``out_e = sum_k <g[k, i], x[k, j]>``, over the elements that e won where `arg` is given."""
    acc_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    row, lo, hi, _is_chunk, _has_work = span(tl.program_id(0), indptr, hubs, num_chunks, HUB)
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < hi
        j = tl.load(index + e, mask=live, other=0).to(tl.int64)
        acc = tl.zeros((BLOCK_E, BLOCK_D), acc_dtype)
        sources = j  # rows of [K S, D]
        own_row = row  # of [K R, D]
        for _ in range(num_layers):
            for first in range(0, WIDTH, BLOCK_D):
                d = first + tl.arange(0, BLOCK_D)
                mask = live[:, None] & (d < WIDTH)[None, :]
                at = sources[:, None] * WIDTH + d[None, :]
                own = own_row * WIDTH + d
                upstream = tl.load(g + own, mask=d < WIDTH, other=0.0).to(acc_dtype)
                value = tl.load(x + at, mask=mask, other=0.0).to(acc_dtype) * upstream[None, :]
                if arg is not None:
                    won = tl.load(arg + own, mask=d < WIDTH, other=-1)[None, :] == e[:, None]
                    value = tl.where(won, value, 0.0)
                acc += value
            sources += num_src
            own_row += num_rows
        total = tl.sum(acc, 1)  # [BLOCK_E]
        tl.store(out + e, total.to(out.dtype.element_ty), mask=live)


def sum_rows(
    graph: CSRGraph,
    x: Tensor,
    weight: Tensor | None = None,
    left: Tensor | None = None,
    right: Tensor | None = None,
    arg: Tensor | None = None,
    edge: Tensor | None = None,
) -> Tensor:
    """[K, num_dst, D] of ``x: [K, num_src, D]``, see `spmm_fwd_row_sum`."""
    x = x.contiguous()
    layers, num_src, width = x.shape
    y = x.new_empty(layers, graph.num_dst, width)
    if y.numel() == 0:
        return y
    blocks = row_blocks(width)
    tiles = layers * triton.cdiv(width, blocks.width)
    hubs, chunks = hub_arguments(graph)
    partial = x.new_empty(layers, chunks, width, dtype=accumulation_dtype(x.dtype)) if chunks else None
    with on_device(x):
        spmm_fwd_row_sum[(chunks + graph.num_dst, tiles)](
            graph.indptr, graph.index, _dense(weight), left, right, arg, edge, hubs, chunks, x, y, partial,
            graph.num_dst, num_src,
            WIDTH=width, HUB=graph.hubs.edges, BLOCK_E=blocks.edges, BLOCK_D=blocks.width, num_warps=blocks.num_warps,
        )  # fmt: skip
        if chunks:
            spmm_fwd_merge_sum[(hubs[0].numel(), tiles)](
                hubs, chunks, left, partial, y, graph.num_dst, WIDTH=width, BLOCK_D=blocks.width,
                num_warps=1,
            )  # fmt: skip
    return y


def arg_dtype(num_edges: int) -> torch.dtype:
    """The dtype of winning edges."""
    return torch.int32 if num_edges < 2**31 else torch.int64


def max_rows(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maxima [K, num_dst, D] of ``x: [K, num_src, D]`` and the edges that won, -1 in rows without edges."""
    x = x.contiguous()
    layers, num_src, width = x.shape
    y = x.new_empty(layers, graph.num_dst, width)
    arg = x.new_empty(y.shape, dtype=arg_dtype(graph.num_edges))
    if y.numel() == 0:
        return y, arg
    blocks = row_blocks(width, most=128)
    tiles = layers * triton.cdiv(width, blocks.width)
    hubs, chunks = hub_arguments(graph)
    partial = x.new_empty(layers, chunks, width, dtype=accumulation_dtype(x.dtype)) if chunks else None
    partial_arg = arg.new_empty(layers, chunks, width) if chunks else None
    with on_device(x):
        spmm_fwd_row_max[(chunks + graph.num_dst, tiles)](
            graph.indptr, graph.index, _dense(weight), hubs, chunks, x, y, arg, partial, partial_arg,
            graph.num_dst, num_src, WIDTH=width, HUB=graph.hubs.edges,
            BLOCK_E=blocks.edges, BLOCK_D=blocks.width, num_warps=2 * blocks.num_warps,
        )  # fmt: skip
        if chunks:
            spmm_fwd_merge_max[(hubs[0].numel(), tiles)](
                hubs, chunks, partial, partial_arg, y, arg, graph.num_dst, WIDTH=width,
                BLOCK_D=blocks.width, num_warps=1,
            )  # fmt: skip
    return y, arg


def max_gradient(graph: CSRGraph, g: Tensor, weight: Tensor | None, arg: Tensor) -> Tensor:
    """[K, num_src, D] gradient of x: what flows back along the edges that won."""
    transposed = graph.transposed
    transposed_weight = None if weight is None else weight.index_select(0, transposed.edge)
    return sum_rows(transposed.graph, g, transposed_weight, arg=arg, edge=transposed.edge)


def max_edge_gradient(graph: CSRGraph, x: Tensor, g: Tensor, arg: Tensor) -> Tensor:
    """[E] gradient of the weight."""
    return edge_products(graph, x, g, arg)


def edge_products(graph: CSRGraph, x: Tensor, g: Tensor, arg: Tensor | None = None) -> Tensor:
    """[E] products of ``x: [K, num_src, D]`` with ``g: [K, num_dst, D]``, see `spmm_bwd_edge_product`."""
    x, g = x.contiguous(), g.contiguous()
    layers, num_src, width = x.shape
    out = x.new_empty(graph.num_edges)
    if width == 0 or layers == 0:
        return out.zero_()
    if graph.num_edges == 0:
        return out
    blocks = row_blocks(width, most=64)
    hubs, chunks = hub_arguments(graph)
    with on_device(x):
        spmm_bwd_edge_product[(chunks + graph.num_dst,)](
            graph.indptr, graph.index, arg, hubs, chunks, x, g, out, layers, graph.num_dst, num_src,
            WIDTH=width, HUB=graph.hubs.edges, BLOCK_E=blocks.edges, BLOCK_D=blocks.width, num_warps=blocks.num_warps,
        )  # fmt: skip
    return out


def _dense(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.contiguous()
