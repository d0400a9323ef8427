# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the row-wise triton kernels share: which program works on which edges, and on how many lanes.

One program takes one row; rows with more than `graph.HUB_EDGES` edges are cut into chunks of so many, which come first
in the grid, so that no program walks a hub alone while the others have left. Chunks leave partial results, which a
second launch, one program per hub, merges in the order of the chunks: no atomics, two runs are bitwise equal.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.graph import CSRGraph


@triton.jit
def span(program, indptr, hubs, num_chunks, HUB: tl.constexpr):
    """(row, lo, hi, is a chunk, has work): the edges [lo, hi) of a program; hubs are left to their chunks.

    `hubs` is a tuple of pointers: the hubs' rows, each hub's first chunk, the hub of each chunk.
    """
    is_chunk = program < num_chunks
    hub = tl.load(hubs[2] + program, mask=is_chunk, other=0)
    hub_at = tl.load(hubs[0] + hub, mask=is_chunk, other=0)
    before = tl.load(hubs[1] + hub, mask=is_chunk, other=0)
    row = tl.where(is_chunk, hub_at, (program - num_chunks).to(tl.int64))
    first = tl.load(indptr + row).to(tl.int64)
    end = tl.load(indptr + row + 1).to(tl.int64)
    lo = tl.where(is_chunk, first + (program - before) * HUB, first)
    hi = tl.where(is_chunk, tl.minimum(lo + HUB, end), end)
    has_work = is_chunk | (end - first <= HUB)
    hi = tl.where(has_work, hi, lo)
    return row, lo, hi, is_chunk, has_work


@triton.jit
def layer_and_columns(WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """The layer and the columns [BLOCK_D] of a program; the second axis of the grid counts the tiles of all layers."""
    tiles: tl.constexpr = (WIDTH + BLOCK_D - 1) // BLOCK_D
    layer = (tl.program_id(1) // tiles).to(tl.int64)
    return layer, (tl.program_id(1) % tiles) * BLOCK_D + tl.arange(0, BLOCK_D)


@triton.jit
def merge_sum(hubs, num_chunks, left, partial, y, num_rows, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """``y[k, i] = left_i sum_c partial[k, c]`` of one hub i, over its chunks in order.

    Each operator calls it from a kernel of its own, whose name a profiler shows.
    """
    acc_dtype: tl.constexpr = tl.float64 if partial.dtype.element_ty == tl.float64 else tl.float32
    hub = tl.program_id(0)
    layer, d = layer_and_columns(WIDTH, BLOCK_D)
    row = tl.load(hubs[0] + hub)
    total = tl.zeros((BLOCK_D,), acc_dtype)
    for chunk in range(tl.load(hubs[1] + hub), tl.load(hubs[1] + hub + 1)):
        total += tl.load(partial + (layer * num_chunks + chunk) * WIDTH + d, mask=d < WIDTH, other=0.0)
    if left is not None:
        total *= tl.load(left + row).to(acc_dtype)
    tl.store(y + (layer * num_rows + row) * WIDTH + d, total.to(y.dtype.element_ty), mask=d < WIDTH)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Shape of a program: a tile of [edges, width] elements, and its warps."""

    edges: int
    width: int
    num_warps: int


def row_blocks(width: int, *, most: int = 256) -> Blocks:
    """The tile for rows of `width` features: 1024 elements to a warp keep registers below a hundred.

    Args:
        most: columns of one program; wider rows take several programs.
    """
    columns = min(most, max(8, triton.next_power_of_2(width)))
    edges = 16 if columns >= 32 else 32
    return Blocks(edges, columns, max(1, edges * columns // 1024))


def hub_arguments(graph: CSRGraph) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """The hubs of `span` (rows, first chunks, hub of each chunk), and the number of chunks."""
    hubs = graph.hubs
    return (hubs.row, hubs.first, hubs.chunk), hubs.chunk.numel()


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Launches go to the current GPU, which may not be `x`'s."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
