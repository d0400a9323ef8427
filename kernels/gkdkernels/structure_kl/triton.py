# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Local structure and its divergence on GPUs.

`..._edge_measure` gathers both ends of a block of edges: edges, not rows, are shared out, so that hubs need no care.
`..._row_log_softmax` and `..._row_divergence` read one number an edge; the divergence runs both softmaxes online in one
pass, and stores nothing per edge. `..._row_gradient` forms each edge's weight in registers and gathers each
neighbour once: on a symmetric graph that is the whole gradient, on a directed one a second launch over the transpose
adds the rest.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.row_tiles_triton import merge_sum, on_device, row_blocks, span
from gkdkernels.graph import HUB_EDGES
from gkdkernels.structure_kl.cpu import inverse_norm
from gkdkernels.structure_kl.edge_rows import EdgeRows, ReverseEdges
from gkdkernels.structure_kl.kernel_functions import MEASURE

TILE_ROWS, TILE_EDGES = 8, 16  # of the kernels on one number an edge; four elements to a lane keep registers low
HUB_TILE = 1024  # a hub has a program of its own


@triton.jit
def _score_of(KERNEL: tl.constexpr, measure, width):
    """``f(m)`` of `structure_kl.kernel_functions.score`."""
    if KERNEL == "laplace-exp":
        value = tl.exp(-measure / width)
    elif KERNEL == "laplace":
        value = -measure / width
    elif KERNEL == "rbf":
        value = -measure / (2.0 * width * width)
    elif KERNEL == "rbf-exp":
        value = tl.exp(-0.5 * measure)
    elif KERNEL == "l2":
        value = tl.sqrt(measure)
    elif KERNEL == "poly":
        value = measure * measure
    else:
        value = measure
    return value


@triton.jit
def _slope_of(KERNEL: tl.constexpr, measure, width):
    """``ds/dm`` of `structure_kl.kernel_functions.slope`."""
    if KERNEL == "laplace-exp":
        value = -tl.exp(-measure / width) / width
    elif KERNEL == "laplace":
        value = measure * 0.0 - 1.0 / width
    elif KERNEL == "rbf":
        value = measure * 0.0 - 0.5 / (width * width)
    elif KERNEL == "rbf-exp":
        value = -0.5 * tl.exp(-0.5 * measure)
    elif KERNEL == "l2":
        value = tl.where(measure <= 0.0, 0.0, 0.5 / tl.sqrt(tl.where(measure <= 0.0, 1.0, measure)))
    elif KERNEL == "poly":
        value = 2.0 * measure
    else:
        value = measure * 0.0 + 1.0
    return value


# `edge_log_probs` launches the measure and the gradient too
@triton.jit
def structure_kl_fwd_edge_measure(
    row,  # [E] one end
    other,  # [E] the other
    scale,  # [N] inverse norms, for the cosine, or None
    x,  # [N, WIDTH]
    out,  # [E]
    num_edges,
    KIND: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Measure of BLOCK_E edges: `l1`, `square` or `cosine`."""
    wide: tl.constexpr = out.dtype.element_ty
    e = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)  # [BLOCK_E]
    live = e < num_edges
    i = tl.load(row + e, mask=live, other=0).to(tl.int64)
    j = tl.load(other + e, mask=live, other=0).to(tl.int64)
    acc = tl.zeros((BLOCK_E, BLOCK_D), wide)
    for first in range(0, WIDTH, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        mask = live[:, None] & (d < WIDTH)[None, :]
        a = tl.load(x + i[:, None] * WIDTH + d[None, :], mask=mask, other=0.0).to(wide)  # [BLOCK_E, BLOCK_D]
        b = tl.load(x + j[:, None] * WIDTH + d[None, :], mask=mask, other=0.0).to(wide)
        if KIND == "l1":
            acc += tl.abs(a - b)
        elif KIND == "square":
            acc += (a - b) * (a - b)
        else:
            acc += a * b
    total = tl.sum(acc, 1)
    if KIND == "cosine":
        total *= tl.load(scale + i, mask=live, other=0.0) * tl.load(scale + j, mask=live, other=0.0)
    tl.store(out + e, total, mask=live)


@triton.jit
def _tile_rows(indptr, hub_row, num_rows, HUBS: tl.constexpr, HUB: tl.constexpr, ROWS: tl.constexpr):
    """(rows, first edges, last edges + 1, is a row of this launch), each [ROWS]: all but the hubs, or one hub."""
    if HUBS:
        rows = tl.load(hub_row + tl.program_id(0)).to(tl.int64) + tl.zeros((ROWS,), tl.int64)
        live = tl.arange(0, ROWS) < 1
    else:
        rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        live = rows < num_rows
    lo = tl.load(indptr + rows, mask=live, other=0).to(tl.int64)
    hi = tl.load(indptr + rows + 1, mask=live, other=0).to(tl.int64)
    if not HUBS:
        live = live & (hi - lo <= HUB)
        hi = tl.where(live, hi, lo)
    return rows, lo, hi, live


@triton.jit
def edge_log_probs_fwd_row_log_softmax(
    indptr,  # [N + 1]
    hub_row,
    measure,  # [E]
    width,  # []
    log_prob,  # [E]
    lse,  # [N], 0 for a row without edges
    num_rows,
    KERNEL: tl.constexpr,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """``s_e - logsumexp s`` over each row's edges."""
    wide: tl.constexpr = log_prob.dtype.element_ty
    rows, lo, hi, live = _tile_rows(indptr, hub_row, num_rows, HUBS, HUB, ROWS)
    sigma = tl.load(width)
    peak = tl.full((ROWS,), -float("inf"), wide)
    total = tl.zeros((ROWS,), wide)
    longest = tl.max(hi - lo, 0)
    for start in range(0, longest, BLOCK_E):
        e = lo[:, None] + start + tl.arange(0, BLOCK_E)[None, :]  # [ROWS, BLOCK_E]
        inside = e < hi[:, None]
        m = tl.load(measure + e, mask=inside, other=0.0)
        s = tl.where(inside, _score_of(KERNEL, m, sigma), -float("inf"))
        top = tl.maximum(peak, tl.max(s, 1))
        base = tl.where(top == -float("inf"), 0.0, top)
        total = total * tl.exp(peak - base) + tl.sum(tl.exp(s - base[:, None]), 1)
        peak = top
    log_total = tl.log(tl.where(total == 0.0, 1.0, total))  # NaN stays NaN
    base = tl.where(peak == -float("inf"), 0.0, peak)
    tl.store(lse + rows, base + log_total, mask=live)
    for start in range(0, longest, BLOCK_E):
        e = lo[:, None] + start + tl.arange(0, BLOCK_E)[None, :]
        inside = e < hi[:, None]
        m = tl.load(measure + e, mask=inside, other=0.0)
        # the peak goes first: a row's only edge has exactly 0
        value = (_score_of(KERNEL, m, sigma) - base[:, None]) - log_total[:, None]
        tl.store(log_prob + e, value, mask=inside)


@triton.jit
def edge_log_probs_bwd_row_total(
    indptr,  # [N + 1]
    hub_row,
    value,  # [E]
    out,  # [N]
    num_rows,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Sum of `value` over each row's edges."""
    rows, lo, hi, live = _tile_rows(indptr, hub_row, num_rows, HUBS, HUB, ROWS)
    acc = tl.zeros((ROWS, BLOCK_E), out.dtype.element_ty)
    for start in range(0, tl.max(hi - lo, 0), BLOCK_E):
        e = lo[:, None] + start + tl.arange(0, BLOCK_E)[None, :]  # [ROWS, BLOCK_E]
        acc += tl.load(value + e, mask=e < hi[:, None], other=0.0)
    tl.store(out + rows, tl.sum(acc, 1), mask=live)


@triton.jit
def structure_kl_fwd_row_divergence(
    indptr,  # [N + 1]
    hub_row,
    measure,  # [E] the student's
    width,  # []
    teacher,  # [E] the teacher's measure, or its log-probabilities
    teacher_width,  # [], or None for log-probabilities
    out,  # [N] divergence of each row, 0 without edges
    lse,  # [N]
    teacher_lse,  # [N], or None for log-probabilities
    num_rows,
    KERNEL: tl.constexpr,
    HUBS: tl.constexpr,
    HUB: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """``sum_e p^t_e (log p^t_e - log p^s_e)`` of each row, both softmaxes online in one pass.

    With ``s, t`` the scores, ``a, b`` their running maxima and ``z_s, z_t`` their sums of ``exp(s - a), exp(t - b)``:
    ``A = sum exp(t - b) ((t - b) - (s - a))``, and at the end ``KL = A / z_t - log z_t + log z_s``.
    """
    wide: tl.constexpr = out.dtype.element_ty
    rows, lo, hi, live = _tile_rows(indptr, hub_row, num_rows, HUBS, HUB, ROWS)
    sigma = tl.load(width)
    a = tl.full((ROWS,), -float("inf"), wide)
    b = tl.full((ROWS,), -float("inf"), wide)
    z_s = tl.zeros((ROWS,), wide)
    z_t = tl.zeros((ROWS,), wide)
    acc = tl.zeros((ROWS,), wide)
    for start in range(0, tl.max(hi - lo, 0), BLOCK_E):
        e = lo[:, None] + start + tl.arange(0, BLOCK_E)[None, :]  # [ROWS, BLOCK_E]
        inside = e < hi[:, None]
        s = tl.where(inside, _score_of(KERNEL, tl.load(measure + e, mask=inside, other=0.0), sigma), -float("inf"))
        t = tl.load(teacher + e, mask=inside, other=0.0).to(wide)
        if teacher_width is not None:
            t = _score_of(KERNEL, t, tl.load(teacher_width))
        t = tl.where(inside, t, -float("inf"))
        new_a = tl.maximum(a, tl.max(s, 1))
        new_b = tl.maximum(b, tl.max(t, 1))
        base_a = tl.where(new_a == -float("inf"), 0.0, new_a)
        base_b = tl.where(new_b == -float("inf"), 0.0, new_b)
        shrink = tl.exp(b - base_b)
        seen = z_t != 0.0
        drift = tl.where(seen, b - base_b, 0.0) - tl.where(seen, a - base_a, 0.0)
        e_t = tl.exp(t - base_b[:, None])  # [ROWS, BLOCK_E]
        counts = e_t > 0.0  # 0 log 0 = 0
        term = tl.where(counts, t - base_b[:, None], 0.0) - tl.where(counts, s - base_a[:, None], 0.0)
        acc = shrink * (acc + z_t * drift) + tl.sum(e_t * term, 1)
        z_t = z_t * shrink + tl.sum(e_t, 1)
        z_s = z_s * tl.exp(a - base_a) + tl.sum(tl.exp(s - base_a[:, None]), 1)
        a, b = new_a, new_b
    some = z_t != 0.0  # NaN shows
    log_s = tl.log(tl.where(z_s == 0.0, 1.0, z_s))
    log_t = tl.log(tl.where(some, z_t, 1.0))
    tl.store(out + rows, tl.where(some, acc / tl.where(some, z_t, 1.0) - log_t + log_s, 0.0), mask=live)
    tl.store(lse + rows, tl.where(a == -float("inf"), 0.0, a) + log_s, mask=live)
    if teacher_lse is not None:
        tl.store(teacher_lse + rows, tl.where(b == -float("inf"), 0.0, b) + log_t, mask=live)


@triton.jit
def structure_kl_bwd_row_gradient(
    indptr,  # [N + 1]
    other,  # [E]
    hubs,
    num_chunks,
    edge,  # [E] for OUT: the forward edge that runs the other way
    x,  # [N, WIDTH]
    scale,  # [N] inverse norms, for the cosine, or None
    measure,  # [E] the student's
    width,  # []
    lse,  # [N]
    upstream,  # [E] gradient of each log-probability; with `teacher`: [] gradient of the divergence over N
    total,  # [N] its row sums; with `teacher`: None
    teacher,  # [E] the teacher's measure or log-probabilities, or None
    teacher_width,  # [] or None
    teacher_lse,  # [N] or None
    y,  # [N, WIDTH]
    partial,  # [chunks, WIDTH] or None
    KERNEL: tl.constexpr,
    KIND: tl.constexpr,
    IN: tl.constexpr,  # these are the in-edges
    OUT: tl.constexpr,  # these are, or the reverses are, the out-edges
    ADD: tl.constexpr,  # to what `y` holds
    WIDTH: tl.constexpr,
    HUB: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """``y_i = sum_e w_e dm_e/dx_i`` over the edges of row i.

    ``w = f'(m) (g - p sum g)`` of the edge (IN), of the edge that runs the other way (OUT), or of both. With a teacher
    of probabilities q, ``g = -c q`` and each sum of g is -c.
    """
    wide: tl.constexpr = measure.dtype.element_ty
    program = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    row, lo, hi, is_chunk, has_work = span(program, indptr, hubs, num_chunks, HUB)
    sigma = tl.load(width)
    own = tl.load(x + row * WIDTH + d, mask=d < WIDTH, other=0.0).to(wide)  # [BLOCK_D]
    own_lse = tl.load(lse + row)
    if teacher is not None:
        constant = tl.load(upstream).to(wide)
        if teacher_lse is not None:
            own_teacher_lse = tl.load(teacher_lse + row)
    else:
        own_total = tl.load(total + row)
    acc = tl.zeros((BLOCK_E, BLOCK_D), wide)
    along = tl.zeros((BLOCK_E,), wide)  # the cosine's part in the direction of x_i
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)  # [BLOCK_E]
        live = e < hi
        j = tl.load(other + e, mask=live, other=0).to(tl.int64)
        if OUT:
            transposed = tl.load(edge + e, mask=live, other=0)
        at = e
        if not IN:
            at = transposed
        m = tl.load(measure + at, mask=live, other=0.0)
        s = _score_of(KERNEL, m, sigma)
        w = tl.zeros((BLOCK_E,), wide)
        if teacher_width is not None:
            t = _score_of(KERNEL, tl.load(teacher + at, mask=live, other=0.0), tl.load(teacher_width))
        if IN:
            p = tl.exp(s - own_lse)
            if teacher is not None:
                if teacher_width is not None:
                    q = tl.exp(t - own_teacher_lse)
                else:
                    q = tl.exp(tl.load(teacher + e, mask=live, other=0.0).to(wide))
                w += constant * (p - q)
            else:
                w += tl.load(upstream + e, mask=live, other=0.0).to(wide) - p * own_total
        if OUT:
            p = tl.exp(s - tl.load(lse + j, mask=live, other=0.0))
            if teacher is not None:
                if teacher_width is not None:
                    q = tl.exp(t - tl.load(teacher_lse + j, mask=live, other=0.0))
                else:
                    q = tl.exp(tl.load(teacher + transposed, mask=live, other=0.0).to(wide))
                w += constant * (p - q)
            else:
                g = tl.load(upstream + transposed, mask=live, other=0.0).to(wide)
                w += g - p * tl.load(total + j, mask=live, other=0.0)
        w = tl.where(live, w * _slope_of(KERNEL, m, sigma), 0.0)
        mask = live[:, None] & (d < WIDTH)[None, :]
        there = tl.load(x + j[:, None] * WIDTH + d[None, :], mask=mask, other=0.0).to(wide)  # [BLOCK_E, BLOCK_D]
        if KIND == "l1":
            apart = own[None, :] - there
            acc += tl.where(apart > 0.0, w[:, None], tl.where(apart < 0.0, -w[:, None], 0.0))
        elif KIND == "square":
            acc += 2.0 * w[:, None] * (own[None, :] - there)
        else:
            acc += (w * tl.load(scale + j, mask=live, other=0.0))[:, None] * there
            along += w * m
    result = tl.sum(acc, 0)  # [BLOCK_D]
    if KIND == "cosine":
        own_scale = tl.load(scale + row)
        result = own_scale * result - own_scale * own_scale * tl.sum(along, 0) * own
    out = row * WIDTH + d
    mine = (d < WIDTH) & has_work & (is_chunk == 0)
    if partial is not None:
        tl.store(partial + program.to(tl.int64) * WIDTH + d, result, mask=(d < WIDTH) & is_chunk)
    if ADD:
        result += tl.load(y + out, mask=mine, other=0.0).to(wide)
    tl.store(y + out, result.to(y.dtype.element_ty), mask=mine)


@triton.jit
def structure_kl_bwd_merge_sum(hubs, num_chunks, partial, y, num_rows, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """`merge_sum` of the chunks that `structure_kl_bwd_row_gradient` left."""
    merge_sum(hubs, num_chunks, None, partial, y, num_rows, WIDTH, BLOCK_D)


def measure(kind: str, x: Tensor, rows: EdgeRows) -> Tensor:
    """[E] the measure of every edge of ``x: [N, D]``, fp32 at least."""
    x, num_edges = x.contiguous(), rows.other.numel()
    out = x.new_zeros(num_edges, dtype=accumulation_dtype(x.dtype))
    if num_edges == 0 or x.size(1) == 0:
        return out
    blocks = row_blocks(x.size(1), most=128)
    with on_device(x):
        structure_kl_fwd_edge_measure[(triton.cdiv(num_edges, blocks.edges),)](
            rows.row, rows.other, _scale(kind, x), x, out, num_edges,
            KIND=kind, WIDTH=x.size(1), BLOCK_E=blocks.edges, BLOCK_D=blocks.width, num_warps=blocks.num_warps,
        )  # fmt: skip
    return out


def log_softmax(kernel: str, measure: Tensor, width: Tensor, rows: EdgeRows) -> tuple[Tensor, Tensor]:
    """Log-probabilities [E] and log-sum-exps [N] of the scores of ``measure: [E]``."""
    nodes = rows.indptr.numel() - 1
    log_prob, lse = measure.new_empty(measure.shape), measure.new_empty(nodes)
    with on_device(measure):
        for hubs, grid, tile, edges, warps in _launches(rows):
            edge_log_probs_fwd_row_log_softmax[(grid,)](
                rows.indptr, rows.hub_row, measure, width, log_prob, lse, nodes,
                KERNEL=kernel, HUBS=hubs, HUB=HUB_EDGES, ROWS=tile, BLOCK_E=edges, num_warps=warps,
            )  # fmt: skip
    return log_prob, lse


def row_sum(value: Tensor, rows: EdgeRows) -> Tensor:
    """[N] sums of ``value: [E]`` over each row's edges."""
    nodes = rows.indptr.numel() - 1
    out = value.new_empty(nodes)
    with on_device(value):
        for hubs, grid, tile, edges, warps in _launches(rows):
            edge_log_probs_bwd_row_total[(grid,)](
                rows.indptr, rows.hub_row, value, out, nodes,
                HUBS=hubs, HUB=HUB_EDGES, ROWS=tile, BLOCK_E=edges, num_warps=warps,
            )  # fmt: skip
    return out


def divergence(
    kernel: str, measure: Tensor, width: Tensor, teacher: Tensor, teacher_width: Tensor | None, rows: EdgeRows
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Divergences [N] of the rows, and the log-sum-exps [N] of the student and, if it has scores, of the teacher."""
    nodes = rows.indptr.numel() - 1
    out, lse = measure.new_empty(nodes), measure.new_empty(nodes)
    teacher_lse = None if teacher_width is None else measure.new_empty(nodes)
    with on_device(measure):
        for hubs, grid, tile, edges, warps in _launches(rows):
            structure_kl_fwd_row_divergence[(grid,)](
                rows.indptr, rows.hub_row, measure, width, teacher, teacher_width, out, lse, teacher_lse, nodes,
                KERNEL=kernel, HUBS=hubs, HUB=HUB_EDGES, ROWS=tile, BLOCK_E=edges, num_warps=warps,
            )  # fmt: skip
    return out, lse, teacher_lse


def gradient(
    kernel: str,
    x: Tensor,
    measure: Tensor,
    width: Tensor,
    lse: Tensor,
    upstream: Tensor,
    total: Tensor | None,
    teacher: tuple[Tensor | None, Tensor | None, Tensor | None],
    rows: EdgeRows,
    transposed: ReverseEdges,
) -> Tensor:
    """[N, D] in the dtype of `x`; `upstream` and the rest as the kernel has them, `teacher` with width and lse."""
    x, kind = x.contiguous(), MEASURE[kernel]
    nodes, features = x.shape
    if rows.other.numel() == 0 or x.numel() == 0:
        return torch.zeros_like(x)
    scale, blocks = _scale(kind, x), row_blocks(features)
    tiles = triton.cdiv(features, blocks.width)
    wide = accumulation_dtype(x.dtype)
    passes = [(rows, True, True)] if transposed.rows is None else [(rows, True, False), (transposed.rows, False, True)]
    y = x.new_empty(x.shape, dtype=x.dtype if len(passes) == 1 else wide)
    for number, (along, incoming, outgoing) in enumerate(passes):
        hubs, chunks = (along.hub_row, along.hub_first, along.hub_chunk), along.hub_chunk.numel()
        partial = x.new_empty(chunks, features, dtype=wide) if chunks else None
        merged = y if number == 0 else y.new_empty(y.shape)
        with on_device(x):
            structure_kl_bwd_row_gradient[(chunks + nodes, tiles)](
                along.indptr, along.other, hubs, chunks, transposed.edge,
                x, scale, measure, width, lse, upstream, total, *teacher, y, partial,
                KERNEL=kernel, KIND=kind, IN=incoming, OUT=outgoing, ADD=number > 0, WIDTH=features, HUB=HUB_EDGES,
                BLOCK_E=blocks.edges, BLOCK_D=blocks.width, num_warps=blocks.num_warps,
            )  # fmt: skip
            if chunks:
                structure_kl_bwd_merge_sum[(along.hub_row.numel(), tiles)](
                    hubs, chunks, partial, merged, nodes,
                    WIDTH=features, BLOCK_D=blocks.width, num_warps=1,
                )  # fmt: skip
        if chunks and number > 0:
            y[along.hub_row] += merged[along.hub_row]
    return y.to(x.dtype)


def _scale(kind: str, x: Tensor) -> Tensor | None:
    return inverse_norm(x.to(accumulation_dtype(x.dtype))) if kind == "cosine" else None


def _launches(rows: EdgeRows) -> list[tuple[bool, int, int, int, int]]:
    """(hubs, programs, rows of a tile, edges of a tile, warps) of the launches that cover every row."""
    nodes, hubs = rows.indptr.numel() - 1, rows.hub_row.numel()
    launches = [(False, triton.cdiv(nodes, TILE_ROWS), TILE_ROWS, TILE_EDGES, 1), (True, hubs, 1, HUB_TILE, 4)]
    return [launch for launch in launches if launch[1]]
