# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Attention aggregation on GPUs: forward with an online softmax, backward that gathers the upstream gradient only.

One program takes one row and a block of heads; see `core.row_tiles_triton` for hubs and `gat` for the algebra.
Nothing per edge is written: backward computes p again from ``lse_i``, the logarithm of the row's sum, and the mask
from its counter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.row_tiles_triton import hub_arguments, merge_sum, on_device, span
from gkdkernels.graph import CSRGraph

_STEPS = tl.constexpr(1 << 24)  # a draw has 24 bits


@triton.jit
def _keep_scale(key, edge, head, DROPPED: tl.constexpr):
    """0 with probability DROPPED / 2^24, else the inverse of the probability to stay: Philox at (key, edge, head).

    edge [A, 1] int64, head [1, B] int32 -> [A, B].
    """
    edge, at = tl.broadcast(edge, head.to(tl.int64))
    draw, _, _, _ = tl.philox(key, edge.to(tl.uint32), (edge >> 32).to(tl.uint32), at.to(tl.uint32), 0)
    scale: tl.constexpr = _STEPS / (_STEPS - DROPPED) if DROPPED < _STEPS else 0.0
    return tl.where((draw >> 8).to(tl.int32) >= DROPPED, scale, 0.0)


@triton.jit
def _block_of(HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_F: tl.constexpr):
    """(tile of the width, heads [BLOCK_H], columns [BLOCK_F], which heads exist, which cells [BLOCK_H, BLOCK_F])."""
    tiles: tl.constexpr = (WIDTH + BLOCK_F - 1) // BLOCK_F
    tile = tl.program_id(1) % tiles
    head = (tl.program_id(1) // tiles) * BLOCK_H + tl.arange(0, BLOCK_H)
    f = tile * BLOCK_F + tl.arange(0, BLOCK_F)
    in_h = head < HEADS
    return tile, head, f, in_h, in_h[:, None] & (f < WIDTH)[None, :]


@triton.jit
def gat_fwd_attend(
    indptr,  # [R + 1]
    index,  # [E]
    h,  # [S, H, F]
    el,  # [S, H]
    er,  # [R, H]
    hubs,
    num_chunks,
    out,  # [R, H, F]
    out_negative_part,  # [R, H, F] o_n, or None
    negative_sum,  # [R, H] q_n
    lse,  # [R, H]
    part,  # [chunks, H, F] the same of the hubs' chunks before the division by the row's sum, or None
    part_lost,
    part_state,  # [3, chunks, H] peak, sum, q_n
    key,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SLOPE: tl.constexpr,
    DROPPED: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """One row, a block of heads, a block of features."""
    wide: tl.constexpr = tl.float64 if h.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    tile, head, f, in_h, cells = _block_of(HEADS, WIDTH, BLOCK_H, BLOCK_F)
    row, lo, hi, is_chunk, has_work = span(program, indptr, hubs, num_chunks, HUB)
    own = tl.load(er + row * HEADS + head, mask=in_h, other=0.0).to(wide)
    peak = tl.full((BLOCK_H,), -float("inf"), wide)
    total = tl.zeros((BLOCK_H,), wide)
    lost_total = tl.zeros((BLOCK_H,), wide)
    acc = tl.zeros((BLOCK_H, BLOCK_F), wide)
    acc_lost = tl.zeros((BLOCK_H, BLOCK_F), wide)
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)  # [BLOCK_E]
        live = e < hi
        j = tl.load(index + e, mask=live, other=0).to(tl.int64)
        both = live[:, None] & in_h[None, :]
        raw = tl.load(el + j[:, None] * HEADS + head[None, :], mask=both, other=0.0).to(wide) + own[None, :]
        score = tl.where(live[:, None], tl.where(raw < 0, raw * SLOPE, raw), -float("inf"))  # [BLOCK_E, BLOCK_H]
        higher = tl.maximum(peak, tl.max(score, 0))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # every source so far is masked by el = -inf
        shrink = tl.exp(peak - base)
        p = tl.exp(score - base[None, :])
        negative_part = tl.where(raw <= 0, p * (1.0 - SLOPE), 0.0)
        total = total * shrink + tl.sum(p, 0)
        lost_total = lost_total * shrink + tl.sum(negative_part, 0)
        if DROPPED > 0:
            scale = _keep_scale(key, e[:, None], head[None, :], DROPPED)
            p *= scale
            negative_part *= scale
        at = (j[:, None, None] * HEADS + head[None, :, None]) * WIDTH + f[None, None, :]
        value = tl.load(h + at, mask=live[:, None, None] & cells[None, :, :], other=0.0).to(wide)
        acc = acc * shrink[:, None] + tl.sum(p[:, :, None] * value, 0)
        if out_negative_part is not None:
            acc_lost = acc_lost * shrink[:, None] + tl.sum(negative_part[:, :, None] * value, 0)
        peak = higher
    if part is not None:
        slot = (program.to(tl.int64) * HEADS + head)[:, None] * WIDTH + f[None, :]
        tl.store(part + slot, acc, mask=cells & is_chunk)
        if out_negative_part is not None:
            tl.store(part_lost + slot, acc_lost, mask=cells & is_chunk)
        state = part_state + program.to(tl.int64) * HEADS + head
        once = in_h & is_chunk & (tile == 0)
        tl.store(state, peak, mask=once)
        tl.store(state + num_chunks * HEADS, total, mask=once)
        tl.store(state + 2 * num_chunks * HEADS, lost_total, mask=once)
    some = hi > lo
    inverse = tl.where(some, 1.0 / tl.where(some, total, 1.0), 0.0)
    mine = has_work & (is_chunk == 0)
    at = (row * HEADS + head)[:, None] * WIDTH + f[None, :]
    tl.store(out + at, (acc * inverse[:, None]).to(out.dtype.element_ty), mask=cells & mine)
    if out_negative_part is not None:
        tl.store(
            out_negative_part + at,
            (acc_lost * inverse[:, None]).to(out_negative_part.dtype.element_ty),
            mask=cells & mine,
        )
    once = in_h & mine & (tile == 0)
    tl.store(negative_sum + row * HEADS + head, lost_total * inverse, mask=once)
    logarithm = tl.where(some, peak + tl.log(tl.where(some, total, 1.0)), 0.0)
    tl.store(lse + row * HEADS + head, logarithm, mask=once)


@triton.jit
def gat_fwd_merge_attend(
    hubs,
    num_chunks,
    out,
    out_negative_part,
    negative_sum,
    lse,
    part,
    part_lost,
    part_state,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """The softmax of one hub from those of its chunks, in order."""
    wide: tl.constexpr = tl.float64 if part.dtype.element_ty == tl.float64 else tl.float32
    hub = tl.program_id(0)
    tile, head, f, in_h, cells = _block_of(HEADS, WIDTH, BLOCK_H, BLOCK_F)
    row = tl.load(hubs[0] + hub)
    peak = tl.full((BLOCK_H,), -float("inf"), wide)
    total = tl.zeros((BLOCK_H,), wide)
    lost_total = tl.zeros((BLOCK_H,), wide)
    acc = tl.zeros((BLOCK_H, BLOCK_F), wide)
    acc_lost = tl.zeros((BLOCK_H, BLOCK_F), wide)
    for chunk in range(tl.load(hubs[1] + hub), tl.load(hubs[1] + hub + 1)):
        state = part_state + chunk * HEADS + head
        chunk_peak = tl.load(state, mask=in_h, other=0.0)
        higher = tl.maximum(peak, chunk_peak)
        base = tl.where(higher == -float("inf"), 0.0, higher)
        shrink, grow = tl.exp(peak - base), tl.exp(chunk_peak - base)
        chunk_total = tl.load(state + num_chunks * HEADS, mask=in_h, other=1.0)
        chunk_lost = tl.load(state + 2 * num_chunks * HEADS, mask=in_h, other=0.0)
        total = total * shrink + chunk_total * grow
        lost_total = lost_total * shrink + chunk_lost * grow
        slot = (chunk * HEADS + head)[:, None] * WIDTH + f[None, :]
        acc = acc * shrink[:, None] + tl.load(part + slot, mask=cells, other=0.0) * grow[:, None]
        if out_negative_part is not None:
            value = tl.load(part_lost + slot, mask=cells, other=0.0)
            acc_lost = acc_lost * shrink[:, None] + value * grow[:, None]
        peak = higher
    at = (row * HEADS + head)[:, None] * WIDTH + f[None, :]
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=cells)
    if out_negative_part is not None:
        tl.store(out_negative_part + at, (acc_lost / total[:, None]).to(out_negative_part.dtype.element_ty), mask=cells)
    tl.store(negative_sum + row * HEADS + head, lost_total / total, mask=in_h & (tile == 0))
    tl.store(lse + row * HEADS + head, peak + tl.log(total), mask=in_h & (tile == 0))


@triton.jit
def gat_bwd_node_products(
    g,  # [R, H, F] upstream
    out,
    out_negative_part,  # or None
    negative_sum,  # [R, H]
    delta,  # [R, H] <g, o>
    grad_er,  # [R, H] or None
    num_cells,  # R H
    WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """delta and the gradient of er, of BLOCK_N pairs of row and head."""
    wide: tl.constexpr = tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32
    cell = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = cell < num_cells
    dot = tl.zeros((BLOCK_N,), wide)
    dot_lost = tl.zeros((BLOCK_N,), wide)
    for first in range(0, WIDTH, BLOCK_F):
        f = first + tl.arange(0, BLOCK_F)
        at, mask = cell[:, None] * WIDTH + f[None, :], live[:, None] & (f < WIDTH)[None, :]
        upstream = tl.load(g + at, mask=mask, other=0.0).to(wide)
        dot += tl.sum(upstream * tl.load(out + at, mask=mask, other=0.0).to(wide), 1)
        if out_negative_part is not None:
            dot_lost += tl.sum(upstream * tl.load(out_negative_part + at, mask=mask, other=0.0).to(wide), 1)
    tl.store(delta + cell, dot, mask=live)
    if grad_er is not None:
        grad = dot * tl.load(negative_sum + cell, mask=live, other=0.0) - dot_lost
        tl.store(grad_er + cell, grad.to(grad_er.dtype.element_ty), mask=live)


@triton.jit
def gat_bwd_attend(
    indptr,  # [S + 1] of the transpose
    index,  # [E] destination of each edge
    edge,  # [E] id of each edge in the graph, which the dropout mask counts by
    h,  # [S, H, F]
    el,  # [S, H]
    er,  # [R, H]
    lse,  # [R, H]
    delta,  # [R, H]
    hubs,
    num_chunks,
    g,  # [R, H, F] upstream
    grad_h,  # [S, H, F]
    grad_el,  # [tiles, S, H] summands of the gradient of el, or None
    part,  # [chunks, H, F] the hubs' chunks of grad_h, or None
    part_el,  # [tiles, chunks, H]
    key,
    num_src,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SLOPE: tl.constexpr,
    DROPPED: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """``d h_j = sum m p g_i`` and ``d el_j = <sum m p lr' g_i, h_j> - sum p lr' delta_i`` over the out-edges of j."""
    wide: tl.constexpr = tl.float64 if h.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    tile, head, f, in_h, cells = _block_of(HEADS, WIDTH, BLOCK_H, BLOCK_F)
    row, lo, hi, is_chunk, has_work = span(program, indptr, hubs, num_chunks, HUB)
    own = tl.load(el + row * HEADS + head, mask=in_h, other=0.0).to(wide)
    acc = tl.zeros((BLOCK_H, BLOCK_F), wide)
    acc_slope = tl.zeros((BLOCK_H, BLOCK_F), wide)
    through = tl.zeros((BLOCK_H,), wide)
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < hi
        i = tl.load(index + e, mask=live, other=0).to(tl.int64)
        both = live[:, None] & in_h[None, :]
        node = i[:, None] * HEADS + head[None, :]  # [BLOCK_E, BLOCK_H]
        raw = tl.load(er + node, mask=both, other=0.0).to(wide) + own[None, :]
        score = tl.where(raw < 0, raw * SLOPE, raw) - tl.load(lse + node, mask=both, other=0.0)
        p = tl.where(both, tl.exp(score), 0.0)
        sloped = tl.where(raw <= 0, p * SLOPE, p)
        through += tl.sum(sloped * tl.load(delta + node, mask=both, other=0.0), 0)
        if DROPPED > 0:
            name = tl.load(edge + e, mask=live, other=0)
            scale = _keep_scale(key, name[:, None], head[None, :], DROPPED)
            p *= scale
            sloped *= scale
        at = node[:, :, None] * WIDTH + f[None, None, :]
        upstream = tl.load(g + at, mask=live[:, None, None] & cells[None, :, :], other=0.0).to(wide)
        acc += tl.sum(p[:, :, None] * upstream, 0)
        if grad_el is not None:
            acc_slope += tl.sum(sloped[:, :, None] * upstream, 0)
    at = (row * HEADS + head)[:, None] * WIDTH + f[None, :]
    mine = has_work & (is_chunk == 0)
    tl.store(grad_h + at, acc.to(grad_h.dtype.element_ty), mask=cells & mine)
    if part is not None:
        slot = (program.to(tl.int64) * HEADS + head)[:, None] * WIDTH + f[None, :]
        tl.store(part + slot, acc, mask=cells & is_chunk)
    if grad_el is not None:
        features = tl.load(h + at, mask=cells, other=0.0).to(wide)
        grad = tl.sum(acc_slope * features, 1) - tl.where(tile == 0, through, 0.0)
        tl.store(grad_el + (tile * num_src + row) * HEADS + head, grad, mask=in_h & mine)
        if part is not None:
            tl.store(part_el + (tile.to(tl.int64) * num_chunks + program) * HEADS + head, grad, mask=in_h & is_chunk)


@triton.jit
def gat_bwd_merge_sum(hubs, num_chunks, partial, y, num_rows, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """`merge_sum` of the chunks that `gat_bwd_attend` left."""
    merge_sum(hubs, num_chunks, None, partial, y, num_rows, WIDTH, BLOCK_D)


@triton.jit
def gat_fwd_draw_mask(mask, key, num_edges, HEADS: tl.constexpr, DROPPED: tl.constexpr, BLOCK: tl.constexpr):
    """``mask: [H, E]`` as the other kernels draw it."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    head = tl.program_id(1)
    edge = e[:, None]
    scale = _keep_scale(key, edge, tl.full((1, 1), 0, tl.int32) + head, DROPPED)
    tl.store(mask + head.to(tl.int64) * num_edges + edge, scale.to(mask.dtype.element_ty), mask=edge < num_edges)


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """Shape of a program: [edges, heads, width] elements, and its warps."""

    edges: int
    heads: int
    width: int
    num_warps: int


def attention_tile(heads: int, width: int) -> AttentionTile:
    """At most 128 columns, as many heads of them as fit: scores and indices are then loaded once for all of these."""
    columns = min(128, max(8, triton.next_power_of_2(width)))
    together = min(triton.next_power_of_2(heads), max(1, 128 // columns))
    edges = 16
    return AttentionTile(edges, together, columns, max(1, edges * together * columns // 1024))


def forward(
    graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, dropout: float, key: int, *, needs_er_grad: bool
) -> list[Tensor]:
    """The output [num_dst, H, F], then o_n of that shape (empty unless `needs_er_grad`), q_n and lse [num_dst, H]."""
    h, el, er = h.contiguous(), el.contiguous(), er.contiguous()
    (_, heads, width), wide = h.shape, accumulation_dtype(h.dtype)
    out = h.new_empty(graph.num_dst, heads, width)
    out_negative_part = h.new_empty(out.shape if needs_er_grad else 0)
    negative_sum, lse = (h.new_empty(graph.num_dst, heads, dtype=wide) for _ in range(2))
    if out.numel() == 0:
        return [out, out_negative_part, negative_sum.zero_(), lse.zero_()]
    tile = attention_tile(heads, width)
    blocks = triton.cdiv(heads, tile.heads) * triton.cdiv(width, tile.width)
    hubs, chunks = hub_arguments(graph)
    part = part_lost = state = None
    if chunks:
        part = h.new_empty(chunks, heads, width, dtype=wide)
        part_lost = torch.empty_like(part) if needs_er_grad else None
        state = h.new_empty(3, chunks, heads, dtype=wide)
    negative_part = out_negative_part if needs_er_grad else None
    shape = {"HEADS": heads, "WIDTH": width, "BLOCK_H": tile.heads, "BLOCK_F": tile.width}
    with on_device(h):
        gat_fwd_attend[(chunks + graph.num_dst, blocks)](
            graph.indptr, graph.index, h, el, er, hubs, chunks, out, negative_part, negative_sum, lse, part, part_lost,
            state, key, **shape, SLOPE=slope, DROPPED=dropped_steps(dropout), HUB=graph.hubs.edges, BLOCK_E=tile.edges,
            num_warps=tile.num_warps,
        )  # fmt: skip
        if chunks:
            gat_fwd_merge_attend[(hubs[0].numel(), blocks)](
                hubs, chunks, out, negative_part, negative_sum, lse, part, part_lost, state, **shape, num_warps=1
            )
    return [out, out_negative_part, negative_sum, lse]


def output_shapes(
    h: Tensor, num_dst: int, num_edges: int, *, needs_er_grad: bool, dropout: float
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `forward` returns."""
    (_, heads, width), wide = h.shape, accumulation_dtype(h.dtype)
    out, node = (num_dst, heads, width), (num_dst, heads)
    return [(out, h.dtype), (out if needs_er_grad else (0,), h.dtype), (node, wide), (node, wide)]


def tensors_for_backward(made: list[Tensor], h: Tensor, el: Tensor, er: Tensor) -> list[Tensor]:
    """What `backward` needs of the inputs and of the results of `forward`."""
    return [h, el, er, *made]


def backward(
    graph: CSRGraph,
    saved: list[Tensor],
    upstream: Tensor,
    slope: float,
    dropout: float,
    key: int,
    *,
    needs_h_grad: bool,
    needs_el_grad: bool,
    needs_er_grad: bool,
) -> list[Tensor]:
    """Gradients of h [num_src, H, F], el [num_src, H] and er [num_dst, H]; empty if not requested."""
    h, el, er, out, out_negative_part, negative_sum, lse = (t.contiguous() for t in saved)
    g, (_, heads, width), wide = upstream.contiguous(), h.shape, accumulation_dtype(h.dtype)
    grad_h = h.new_empty(h.shape if needs_h_grad or needs_el_grad else 0)
    grad_er = er.new_empty(graph.num_dst if needs_er_grad else 0, heads)
    if out.numel() == 0:
        return [grad_h.zero_(), el.new_zeros(graph.num_src if needs_el_grad else 0, heads), grad_er.zero_()]
    tile = attention_tile(heads, width)
    tiles = triton.cdiv(width, tile.width)
    delta = torch.empty_like(lse)
    rows = max(1, 1024 // tile.width)
    transposed = graph.transposed
    hubs, chunks = hub_arguments(transposed.graph)
    grad_el = h.new_empty(tiles, graph.num_src, heads, dtype=wide) if needs_el_grad else None
    part = part_el = None
    if chunks:
        part = h.new_empty(chunks, heads, width, dtype=wide)
        part_el = h.new_empty(tiles, chunks, heads, dtype=wide)
    with on_device(h):
        gat_bwd_node_products[(triton.cdiv(lse.numel(), rows),)](
            g, out, out_negative_part if needs_er_grad else None, negative_sum, delta, grad_er if needs_er_grad else
            None, lse.numel(), WIDTH=width, BLOCK_N=rows, BLOCK_F=tile.width, num_warps=1,
        )  # fmt: skip
        if grad_h.numel():
            gat_bwd_attend[(chunks + graph.num_src, triton.cdiv(heads, tile.heads) * tiles)](
                transposed.graph.indptr, transposed.graph.index, transposed.edge, h, el, er, lse, delta, hubs, chunks,
                g, grad_h, grad_el, part, part_el, key, graph.num_src, HEADS=heads, WIDTH=width, SLOPE=slope,
                DROPPED=dropped_steps(dropout), HUB=transposed.graph.hubs.edges, BLOCK_E=tile.edges, BLOCK_H=tile.heads,
                BLOCK_F=tile.width, num_warps=tile.num_warps,
            )  # fmt: skip
    if part is not None and part_el is not None and grad_h.numel():
        _merge(transposed.graph, part, grad_h)
        if grad_el is not None:
            for layer in range(tiles):
                _merge(transposed.graph, part_el[layer, :, :, None], grad_el[layer, :, :, None])
    summed = el.new_empty(0, heads) if grad_el is None else grad_el.sum(0).to(el.dtype)
    return [grad_h, summed, grad_er]


def dropout_mask(
    num_edges: int, heads: int, dropout: float, key: int, *, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[H, E] mask that `gat_aggregate` applies on this backend: 0, or the inverse of the probability to stay.

    `dropout` counts in steps of 2^-24; the draw of a coefficient depends on (key, edge, head) alone.
    """
    mask = torch.empty(heads, num_edges, dtype=dtype, device=device)
    if mask.numel():
        with on_device(mask):
            gat_fwd_draw_mask[(triton.cdiv(num_edges, 256), heads)](
                mask, key, num_edges, HEADS=heads, DROPPED=dropped_steps(dropout), BLOCK=256
            )
    return mask


def dropped_steps(dropout: float) -> int:
    """`dropout` in steps of 2^-24."""
    steps: int = _STEPS.value
    return round(dropout * steps)


def _merge(graph: CSRGraph, part: Tensor, into: Tensor) -> None:
    """Sums of the hubs' chunks ``part: [chunks, H, F]``, in order, into the hubs' rows of ``into: [rows, H, F]``."""
    hubs, chunks = hub_arguments(graph)
    width = part.size(1) * part.size(2)
    block = min(256, triton.next_power_of_2(width))
    with on_device(part):
        gat_bwd_merge_sum[(hubs[0].numel(), triton.cdiv(width, block))](
            hubs, chunks, part, into, into.size(0), WIDTH=width, BLOCK_D=block,
            num_warps=1,
        )  # fmt: skip
