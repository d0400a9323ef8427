# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Routing by memory on GPUs: norms, cosines, the k best experts, their softmax and the histogram in one launch.

A program takes a tile of rows and all experts, padded to a power of two: the scores of a row never leave the program.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.row_tiles_triton import on_device

_EPS = tl.constexpr(1e-12)


@triton.jit
def route_by_memory_fwd_route_rows(
    x,  # [N, D]
    memory,  # [E, D]
    index,  # [N, K] int64
    alpha,  # [N, K]
    cosine,  # [N, K]
    counts,  # [tiles, E] int32: how many rows of the tile take each expert
    num_rows,
    EXPERTS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The k largest cosines of each row, ties to the lowest expert, and their softmax."""
    acc_dtype: tl.constexpr = alpha.dtype.element_ty
    tile = tl.program_id(0)
    n = tile.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    e = tl.arange(0, BLOCK_E)
    live = n < num_rows
    product = tl.zeros((BLOCK_N, BLOCK_E), acc_dtype)
    row_square = tl.zeros((BLOCK_N,), acc_dtype)
    memory_square = tl.zeros((BLOCK_E,), acc_dtype)
    for start in range(0, WIDTH, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (d < WIDTH)[None, :]
        a = tl.load(x + n[:, None] * WIDTH + d[None, :], mask=live[:, None] & inside, other=0.0).to(acc_dtype)
        m = tl.load(memory + e[:, None] * WIDTH + d[None, :], mask=(e < EXPERTS)[:, None] & inside, other=0.0)
        m = m.to(acc_dtype)
        # a rounded product would change experts: no TF32 here
        product = tl.dot(a, tl.trans(m), product, input_precision="ieee", out_dtype=acc_dtype)
        row_square += tl.sum(a * a, 1)
        memory_square += tl.sum(m * m, 1)
    norms = tl.maximum(tl.sqrt(row_square), _EPS)[:, None] * tl.maximum(tl.sqrt(memory_square), _EPS)[None, :]
    score = product / norms  # [BLOCK_N, BLOCK_E]
    # NaN counts as the largest, so that it is chosen and shows
    left = tl.where(score != score, float("inf"), score)
    left = tl.where((e < EXPERTS)[None, :], left, float("-inf"))
    slots = tl.arange(0, BLOCK_K)
    best = tl.full((BLOCK_N, BLOCK_K), float("-inf"), acc_dtype)
    chosen = tl.zeros((BLOCK_N, BLOCK_E), tl.int32)
    for slot in range(K):
        top = tl.max(left, 1)  # [BLOCK_N]
        first = tl.min(tl.where(left == top[:, None], e[None, :], BLOCK_E), 1)  # [BLOCK_N]
        is_first = e[None, :] == first[:, None]
        value = tl.sum(tl.where(is_first, score, 0.0), 1)
        tl.store(index + n * K + slot, first.to(tl.int64), mask=live)
        tl.store(cosine + n * K + slot, value, mask=live)
        best = tl.where((slots == slot)[None, :], value[:, None], best)
        chosen += is_first.to(tl.int32)
        left = tl.where(is_first, float("-inf"), left)
    # cosines lie in [-1, 1]: the exponentials need no shift
    power = tl.where((slots < K)[None, :], tl.exp(best), 0.0)
    share = power / tl.sum(power, 1)[:, None]
    tl.store(alpha + n[:, None] * K + slots[None, :], share, mask=live[:, None] & (slots < K)[None, :])
    chosen = tl.where(live[:, None], chosen, 0)
    tl.store(counts + tile.to(tl.int64) * EXPERTS + e, tl.sum(chosen, 0), mask=e < EXPERTS)


@dataclass(frozen=True, slots=True)
class RouteTiles:
    """Rows of a program, its padded experts, slots and depth, and its warps."""

    rows: int
    experts: int
    slots: int
    depth: int
    num_warps: int


def padded_experts(experts: int) -> int:
    """A power of two, at least the 16 of a tensor core's tile."""
    return max(16, int(triton.next_power_of_2(experts)))


def tile_rows(experts: int) -> int:
    """Rows of a tile of routing and of the counting sort, whose counts are those of routing: 1024 scores."""
    return max(16, min(64, 1024 // padded_experts(experts)))


def route_tiles(experts: int, k: int, width: int) -> RouteTiles:
    """The tile of `route_by_memory_fwd_route_rows`."""
    padded = padded_experts(experts)
    depth = max(16, min(32, triton.next_power_of_2(width)))
    return RouteTiles(tile_rows(experts), padded, triton.next_power_of_2(k), depth, 4 if padded <= 256 else 8)


def route_triton(x: Tensor, memory: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """index, alpha and cosine [N, k], and counts [tiles, E] int32 of tiles of `tile_rows`. No autograd."""
    (rows, width), experts = x.shape, memory.size(0)
    wide = torch.promote_types(accumulation_dtype(x.dtype), memory.dtype)
    tiles = route_tiles(experts, k, width)
    programs = triton.cdiv(rows, tiles.rows)
    index = x.new_empty(rows, k, dtype=torch.int64)
    alpha, cosine = x.new_empty(rows, k, dtype=wide), x.new_empty(rows, k, dtype=wide)
    counts = x.new_empty(programs, experts, dtype=torch.int32)
    if rows:
        with on_device(x):
            route_by_memory_fwd_route_rows[(programs,)](
                x.contiguous(),
                memory.contiguous(),
                index,
                alpha,
                cosine,
                counts,
                rows,
                EXPERTS=experts,
                K=k,
                WIDTH=width,
                BLOCK_N=tiles.rows,
                BLOCK_E=tiles.experts,
                BLOCK_K=tiles.slots,
                BLOCK_D=tiles.depth,
                num_warps=tiles.num_warps,
            )
    return index, alpha, cosine, counts
