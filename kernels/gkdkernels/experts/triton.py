# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""`expert_linear` on GPUs: a counting sort of the pairs by expert, grouped products, sums over a row's pairs.

Nothing waits for the device: the grid has a tile for every ``BLOCK_M`` pairs and one more per expert, a bound that
needs no count, and a tile finds its expert and rows from the sorted starts; surplus tiles leave. Pairs are read through
the sorted order and written at their own place, so that a row's k results lie side by side and are added in the order
of its slots. No atomics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype, interpreted
from gkdkernels.core.row_tiles_triton import on_device
from gkdkernels.experts.routing_triton import padded_experts, tile_rows

_SIDE = 64  # of the largest tile


# backward launches the sort and, on the transposed weights, the products
@triton.jit
def expert_linear_fwd_count_experts(
    index,  # [N, K]
    counts,  # [tiles, E] int32
    num_rows,
    EXPERTS: tl.constexpr,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """How many pairs of a tile of rows go to each expert."""
    tile = tl.program_id(0).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    e = tl.arange(0, BLOCK_E)
    total = tl.zeros((BLOCK_E,), tl.int32)
    for slot in range(K):
        expert = tl.load(index + n * K + slot, mask=n < num_rows, other=-1).to(tl.int32)
        total += tl.sum((expert[:, None] == e[None, :]).to(tl.int32), 0)
    tl.store(counts + tile * EXPERTS + e, total, mask=e < EXPERTS)


@triton.jit
def expert_linear_fwd_place_pairs(
    index,  # [N, K]
    start,  # [E, tiles] int64: where the pairs of a tile begin among all, sorted by expert
    order,  # [N K] int64: sorted pairs
    num_rows,
    num_tiles,
    EXPERTS: tl.constexpr,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Stable: the pairs of an expert keep their order."""
    tile = tl.program_id(0).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    e = tl.arange(0, BLOCK_E)
    live = n < num_rows
    taken = tl.zeros((BLOCK_N, BLOCK_E), tl.int32)
    for slot in range(K):
        expert = tl.load(index + n * K + slot, mask=live, other=-1).to(tl.int32)
        taken += (expert[:, None] == e[None, :]).to(tl.int32)
    rank = tl.cumsum(taken, 0) - taken  # [BLOCK_N, BLOCK_E] pairs of the expert in the rows above
    for slot in range(K):
        expert = tl.load(index + n * K + slot, mask=live, other=-1).to(tl.int32)
        here = expert[:, None] == e[None, :]
        known = live & (expert >= 0) & (expert < EXPERTS)
        first = tl.load(start + expert.to(tl.int64) * num_tiles + tile, mask=known, other=0)
        tl.store(order + first + tl.sum(tl.where(here, rank, 0), 1), n * K + slot, mask=known)
        rank += here.to(tl.int32)


@triton.jit
def expert_linear_fwd_products(
    a,  # [N K / SHARE, INNER] rows; SHARE pairs read one
    weight,  # [E, INNER, OUT] by strides
    bias,  # [E, OUT] or None
    alpha,  # [N K]
    order,  # [N K] int64: sorted pairs
    start,  # [E, tiles] int64
    out,  # [N K, OUT], or None
    other,  # [N K / OTHER_SHARE, OUT], with `dots`
    dots,  # [N K, columns of tiles], or None
    num_pairs,
    num_tiles,
    stride_expert,
    stride_inner,
    stride_out,
    EXPERTS: tl.constexpr,
    INNER: tl.constexpr,
    OUT: tl.constexpr,
    SHARE: tl.constexpr,
    OTHER_SHARE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """``out_p = alpha_p (a W_e + b_e)`` of every pair p, and ``dots_p = <a W_e, other>``, one per column of tiles."""
    acc_dtype: tl.constexpr = tl.float64 if a.dtype.element_ty == tl.float64 else tl.float32
    tile, column = tl.program_id(0), tl.program_id(1)
    e = tl.arange(0, BLOCK_E).to(tl.int64)
    lo_of = tl.load(start + e * num_tiles, mask=e < EXPERTS, other=num_pairs)
    hi_of = tl.load(start + (e + 1) * num_tiles, mask=e + 1 < EXPERTS, other=num_pairs)
    tiles_of = (hi_of - lo_of + BLOCK_M - 1) // BLOCK_M
    end_of = tl.cumsum(tiles_of, 0)
    expert = tl.sum((end_of <= tile).to(tl.int64), 0)
    if expert >= EXPERTS:
        return
    mine = e == expert
    lo, hi = tl.sum(tl.where(mine, lo_of, 0), 0), tl.sum(tl.where(mine, hi_of, 0), 0)
    before = tl.sum(tl.where(mine, end_of - tiles_of, 0), 0)
    at = lo + (tile - before) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    live = at < hi
    pair = tl.load(order + at, mask=live, other=0)
    row = pair // SHARE
    n = column * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = live[:, None] & (n < OUT)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), acc_dtype)
    for begin in range(0, INNER, BLOCK_K):
        k = begin + tl.arange(0, BLOCK_K)
        left = tl.load(a + row[:, None] * INNER + k[None, :], mask=live[:, None] & (k < INNER)[None, :], other=0.0)
        right = tl.load(
            weight + expert * stride_expert + k[:, None] * stride_inner + n[None, :] * stride_out,
            mask=(k < INNER)[:, None] & (n < OUT)[None, :],
            other=0.0,
        )
        if WIDEN:
            left, right = left.to(acc_dtype), right.to(acc_dtype)
        acc = tl.dot(left, right, acc, input_precision=PRECISION, out_dtype=acc_dtype)
    if dots is not None:
        o = tl.load(other + (pair // OTHER_SHARE)[:, None] * OUT + n[None, :], mask=inside, other=0.0).to(acc_dtype)
        tl.store(dots + pair * tl.num_programs(1) + column, tl.sum(acc * o, 1), mask=live)
    if bias is not None:
        acc += tl.load(bias + expert * OUT + n, mask=n < OUT, other=0.0).to(acc_dtype)[None, :]
    if out is not None:
        share = tl.load(alpha + pair, mask=live, other=0.0).to(acc_dtype)
        tl.store(out + pair[:, None] * OUT + n[None, :], (acc * share[:, None]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def expert_linear_bwd_weight_gradient(
    x,  # [N K / SHARE, D]
    g,  # [N, H]
    alpha,  # [N K]
    order,  # [N K] int64
    start,  # [E, tiles] int64
    out,  # [SPLITS, E, D, H] partial sums
    num_pairs,
    num_tiles,
    EXPERTS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    SHARE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """``sum_p alpha_p x_p^T g_p`` over one of `SPLITS` parts of the pairs of an expert."""
    acc_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    across: tl.constexpr = (OUT + BLOCK_H - 1) // BLOCK_H
    expert, split = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    d = (tl.program_id(0) // across).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    h = (tl.program_id(0) % across) * BLOCK_H + tl.arange(0, BLOCK_H)
    lo = tl.load(start + expert * num_tiles)
    hi = tl.load(start + (expert + 1) * num_tiles, mask=expert + 1 < EXPERTS, other=num_pairs)
    part = (hi - lo + SPLITS - 1) // SPLITS
    begin = lo + split * part
    end = tl.minimum(begin + part, hi)
    acc = tl.zeros((BLOCK_D, BLOCK_H), acc_dtype)
    for at0 in range(begin, end, BLOCK_M):
        at = at0 + tl.arange(0, BLOCK_M)
        live = at < end
        pair = tl.load(order + at, mask=live, other=0)
        share = tl.load(alpha + pair, mask=live, other=0.0).to(acc_dtype)
        left = tl.load(
            x + (pair // SHARE)[:, None] * WIDTH + d[None, :], mask=live[:, None] & (d < WIDTH)[None, :], other=0.0
        )
        right = tl.load(g + (pair // K)[:, None] * OUT + h[None, :], mask=live[:, None] & (h < OUT)[None, :], other=0.0)
        right = (right.to(acc_dtype) * share[:, None]).to(g.dtype.element_ty)
        if WIDEN:
            left, right = left.to(acc_dtype), right.to(acc_dtype)
        acc = tl.dot(tl.trans(left), right, acc, input_precision=PRECISION, out_dtype=acc_dtype)
    to = ((split * EXPERTS + expert) * WIDTH + d[:, None]) * OUT + h[None, :]
    tl.store(out + to, acc, mask=(d < WIDTH)[:, None] & (h < OUT)[None, :])


@dataclass(frozen=True, slots=True)
class Tiles:
    """A program's rows, columns and depth of one step, and its warps."""

    rows: int
    columns: int
    depth: int
    num_warps: int


def tile_sizes(inner: int, out: int, dtype: torch.dtype) -> Tiles:
    """The tile of a product of [pairs, inner] and [inner, out]; each side at least 16, the least of a tensor core.

    Eight warps and, where a factor takes 4 bytes or more, half the depth keep registers below 128.
    """
    columns = max(16, min(_SIDE, triton.next_power_of_2(out)))
    depth = max(16, min(32 if dtype.itemsize == 2 else 16, triton.next_power_of_2(inner)))
    return Tiles(_SIDE, columns, depth, 8)


def gradient_rows(width: int, dtype: torch.dtype) -> int:
    """Rows of the weight that one program of its gradient sums: three TF32 products take twice the registers."""
    return max(16, min(_SIDE if dtype.itemsize == 2 else _SIDE // 2, int(triton.next_power_of_2(width))))


def weight_splits(pairs: int, width: int, out: int, experts: int, *, programs: int = 528) -> int:
    """Parts of each expert's pairs in the gradient of the weight: enough to fill a GPU, at least 256 pairs each."""
    at_once = triton.cdiv(width, _SIDE) * triton.cdiv(out, _SIDE) * experts
    most = max(1, pairs // (256 * experts))
    return max(1, min(programs // max(1, int(at_once)), most))


@dataclass(frozen=True, slots=True)
class SortedPairs:
    """Pairs by expert: ``order: [N k]`` and ``start: [E, tiles]`` int64; expert e begins at ``start[e, 0]``."""

    order: Tensor
    start: Tensor
    experts: int


def sort_pairs(index: Tensor, experts: int, counts: Tensor | None = None) -> SortedPairs:
    """Counting sort, stable, on the device; for at least one pair.

    Args:
        index: [N, k] int, contiguous.
        experts: E.
        counts: [tiles, E] int32 of tiles of `tile_rows` rows, where routing has counted already.
    """
    rows, k = index.shape
    block = tile_rows(experts)
    num_tiles = triton.cdiv(rows, block)
    sizes = {"EXPERTS": experts, "K": k, "BLOCK_N": block, "BLOCK_E": padded_experts(experts)}
    order = index.new_empty(rows * k, dtype=torch.int64)
    with on_device(index):
        if counts is None:
            counts = index.new_empty(num_tiles, experts, dtype=torch.int32)
            expert_linear_fwd_count_experts[(num_tiles,)](index, counts, rows, **sizes)
        transposed = counts.t().reshape(-1)
        start = (transposed.cumsum(0) - transposed).view(experts, num_tiles)
        expert_linear_fwd_place_pairs[(num_tiles,)](index, start, order, rows, num_tiles, **sizes)
    return SortedPairs(order, start, experts)


def forward_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, counts: Tensor | None = None
) -> Tensor:
    """[N, H]; ``x: [N, D]``, or [N k, D] with one row per pair. No autograd. `counts` as of `sort_pairs`."""
    (rows, k), out = index.shape, weight.size(2)
    if rows * out == 0:
        return x.new_empty(rows, out)
    pairs = sort_pairs(index.contiguous(), weight.size(0), counts)
    each = x.new_empty(rows * k, out)
    _products(pairs, x, weight, None if bias is None else bias.contiguous(), alpha, each)
    return each if k == 1 else each.view(rows, k, out).sum(1)


def backward_triton(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and alpha; one that `needs` leaves out is empty."""
    rows, k = index.shape
    experts, width, _ = weight.shape
    nothing = x.new_empty(0)
    needs_x, needs_weight, needs_bias, needs_alpha = needs
    dx = torch.zeros_like(x, memory_format=torch.contiguous_format) if needs_x else nothing
    dweight = torch.zeros_like(weight, memory_format=torch.contiguous_format) if needs_weight else nothing
    dbias = nothing if bias is None or not needs_bias else torch.zeros_like(bias)
    dalpha = torch.zeros_like(alpha, memory_format=torch.contiguous_format) if needs_alpha else nothing
    if g.numel() == 0:
        return dx, dweight, dbias, dalpha
    g, x, pairs = g.contiguous(), x.contiguous(), sort_pairs(index.contiguous(), experts)
    if width and (needs_x or needs_alpha):
        each = x.new_empty(rows * k, width) if needs_x else None
        dots = _products(pairs, g, weight.transpose(1, 2), None, alpha, each, x if needs_alpha else None)
        if each is not None:
            dx = each if x.size(0) == rows * k else each.view(rows, k, width).sum(1)
        if dots is not None:
            dalpha = dots.sum(1).view(rows, k).to(alpha.dtype)
    if width and needs_weight:
        dweight = _weight_gradient(pairs, g, x, alpha, k).to(weight.dtype)
    if bias is not None and needs_alpha:
        dalpha += (g @ bias.t()).gather(1, index.long())
    if bias is not None and needs_bias:
        share = alpha.new_zeros(rows, experts).scatter_add_(1, index.long(), alpha)
        dbias = share.to(g.dtype).t() @ g
    return dx, dweight, dbias, dalpha


def _products(
    pairs: SortedPairs,
    a: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor,
    out: Tensor | None,
    other: Tensor | None = None,
) -> Tensor | None:
    """Fill ``out: [N k, OUT]`` and return the dots with `other`, [N k, columns], if it is given."""
    experts, inner, width = weight.shape
    number, tiles = pairs.order.numel(), tile_sizes(inner, width, a.dtype)
    columns = triton.cdiv(width, tiles.columns)
    wide = torch.promote_types(a.dtype, torch.float32)
    dots = None if other is None else a.new_empty(number, columns, dtype=wide)
    with on_device(a):
        expert_linear_fwd_products[(triton.cdiv(number, tiles.rows) + experts, columns)](
            a.contiguous(),
            weight,
            bias,
            alpha.contiguous(),
            pairs.order,
            pairs.start,
            out,
            other,
            dots,
            number,
            pairs.start.size(1),
            *weight.stride(),
            EXPERTS=experts,
            INNER=inner,
            OUT=width,
            SHARE=number // a.size(0),
            OTHER_SHARE=1 if other is None else number // other.size(0),
            BLOCK_E=padded_experts(experts),
            BLOCK_M=tiles.rows,
            BLOCK_N=tiles.columns,
            BLOCK_K=tiles.depth,
            PRECISION=_precision(a.dtype),
            WIDEN=_widened(a.dtype),
            num_warps=tiles.num_warps,
        )
    return dots


def _weight_gradient(pairs: SortedPairs, g: Tensor, x: Tensor, alpha: Tensor, k: int) -> Tensor:
    """[E, D, H], at least fp32."""
    number, width, out = pairs.order.numel(), x.size(1), g.size(1)
    tiles = tile_sizes(number, out, x.dtype)
    block_d = gradient_rows(width, x.dtype)
    splits = weight_splits(number, width, out, pairs.experts)
    parts = x.new_empty(splits, pairs.experts, width, out, dtype=accumulation_dtype(x.dtype))
    grid = (triton.cdiv(width, block_d) * triton.cdiv(out, tiles.columns), pairs.experts, splits)
    with on_device(x):
        expert_linear_bwd_weight_gradient[grid](
            x,
            g,
            alpha.contiguous(),
            pairs.order,
            pairs.start,
            parts,
            number,
            pairs.start.size(1),
            EXPERTS=pairs.experts,
            K=k,
            WIDTH=width,
            OUT=out,
            SHARE=number // x.size(0),
            SPLITS=splits,
            BLOCK_M=tiles.depth,
            BLOCK_D=block_d,
            BLOCK_H=tiles.columns,
            PRECISION=_precision(x.dtype),
            WIDEN=_widened(x.dtype),
            num_warps=tiles.num_warps,
        )
    return parts[0] if splits == 1 else parts.sum(0)


def _precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply fp32: as three TF32 products, nearly exact, or as one where torch may use TF32."""
    if dtype != torch.float32:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _widened(dtype: torch.dtype) -> bool:
    """Whether factors are made fp32: triton's interpreter would multiply the bits of bf16."""
    return interpreted() and dtype == torch.bfloat16
