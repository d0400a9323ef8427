"""Attention aggregation on the CPU as compiled loops: the algebra of `gat`, all heads at once (extra `numba`).

Forward walks the edges of each row twice: for the largest score, then for the sums. Backward walks the edges of each
source once and gathers the upstream gradient only; it computes attention again from four numbers per destination and
head. Only the dropout mask, that of `gat.cpu` bit by bit, is as long as the edges. A row's sums run in the order of its
edges, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.dropout import keyed_mask
from gkdkernels.core.numba_tools import CHUNK_ROWS, FAST_SUMS, exp, loops, run
from gkdkernels.graph import CSRGraph

_BLOCK_EDGES = 64  # exponentials are taken of a block's scores at once, as vectors


def forward(
    graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, dropout: float, key: int, *, needs_er_grad: bool
) -> list[Tensor]:
    """The output [num_dst, H, F], and tensors that `backward` needs; arguments as in `gat.cpu`."""
    rows, left, right = (_rows(tensor) for tensor in (h, el, er))
    heads, cells = right.size(1), rows.size(1)
    out = rows.new_zeros(graph.num_dst, cells)
    out_negative_part = torch.zeros_like(out) if needs_er_grad else rows.new_empty(0, cells)
    softmax = rows.new_zeros(3, graph.num_dst, heads)  # the largest score, one over the sum, the negative part
    mask = rows.new_empty(0, heads)
    if dropout > 0:
        by_head = keyed_mask(torch.Size((heads, graph.num_edges)), dropout, key, dtype=rows.dtype, device=rows.device)
        mask = by_head.t().contiguous()  # [E, H]
    if right.numel():
        edges = (graph.indptr.long(), graph.index.long())  # one kind of index: each more is compiled on its own
        run(gat_fwd_rows, *edges, rows, left, right, mask, rows.new_tensor(slope), out, out_negative_part, softmax)
    wide = out.view(graph.num_dst, *h.shape[1:])
    return [wide.to(h.dtype), wide, out_negative_part, softmax, mask]


def output_shapes(
    h: Tensor, num_dst: int, num_edges: int, *, needs_er_grad: bool, dropout: float
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `forward` returns."""
    (_, heads, width), wide = h.shape, accumulation_dtype(h.dtype)
    kept = ((num_dst if needs_er_grad else 0, heads * width), (3, num_dst, heads), (num_edges if dropout else 0, heads))
    return [((num_dst, heads, width), h.dtype), *((shape, wide) for shape in ((num_dst, heads, width), *kept))]


def tensors_for_backward(made: list[Tensor], h: Tensor, el: Tensor, er: Tensor) -> list[Tensor]:
    """What `backward` needs of the inputs and of the results of `forward`."""
    return [*made[1:], h, el, er]


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
    out, out_negative_part, (peak, scale, negative_part), mask, h, el, er = saved
    rows, left, right, g = (_rows(tensor) for tensor in (h, el, er, upstream))
    delta = (g.view(out.shape) * out).sum(-1)  # [num_dst, H]
    grad_er = rows.new_empty(0, right.size(1))
    if needs_er_grad:
        grad_er = delta * negative_part - (g * out_negative_part).view(out.shape).sum(-1)
    sources = graph.num_src if needs_h_grad or needs_el_grad else 0
    grad_h, grad_el = rows.new_zeros(sources, rows.size(1)), rows.new_zeros(sources, right.size(1))
    if grad_el.numel():
        transposed = graph.transposed
        edges = (transposed.graph.indptr.long(), transposed.graph.index.long(), transposed.edge)
        node = torch.stack((right, peak, scale, delta), 1)  # [num_dst, 4, H]: contiguous, since one edge reads all four
        run(gat_bwd_rows, *edges, rows, left, node, g, mask, rows.new_tensor(slope), grad_h, grad_el)
    final = grad_h.view(sources, *h.shape[1:])
    return [grad.to(upstream.dtype) for grad in (final, grad_el, grad_er)]


def _rows(x: Tensor) -> Tensor:
    """[N, rest] contiguous, at least fp32."""
    return x.detach().to(accumulation_dtype(x.dtype)).flatten(1).contiguous()


@loops(FAST_SUMS)
def gat_fwd_rows(
    indptr: Any,
    index: Any,
    h: Any,
    el: Any,
    er: Any,
    mask: Any,
    slope: Any,
    out: Any,
    out_negative_part: Any,
    softmax: Any,
) -> None:
    """``mask: [E, H]``, or [0, H] for none; slope: [] of the dtype of all; the results hold zeros."""
    rows, heads = er.shape
    width = h.shape[1] // heads
    less, masked, lossy = slope[()], len(mask) > 0, len(out_negative_part) > 0
    for chunk in numba.prange((rows + CHUNK_ROWS - 1) // CHUNK_ROWS):
        p = np.empty(_BLOCK_EDGES * heads, h.dtype)
        n = np.empty(_BLOCK_EDGES * heads, h.dtype)
        for i in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
            begin, end = indptr[i], indptr[i + 1]
            if begin == end:
                continue
            own, peak, total, negative_part = er[i], softmax[0, i], softmax[1, i], softmax[2, i]
            peak[:] = -np.inf
            for e in range(begin, end):
                there = el[index[e]]
                for k in range(heads):
                    score = there[k] + own[k]
                    peak[k] = max(peak[k], score * less if score < 0 else score)
            for first in range(begin, end, _BLOCK_EDGES):
                last = min(first + _BLOCK_EDGES, end)
                for e in range(first, last):
                    there, at = el[index[e]], (e - first) * heads
                    for k in range(heads):
                        score = there[k] + own[k]
                        p[at + k] = (score * less if score < 0 else score) - peak[k]
                        n[at + k] = 1 - less if score <= 0 else 0
                for cell in range((last - first) * heads):
                    p[cell] = exp(p[cell])
                    n[cell] *= p[cell]
                for e in range(first, last):
                    row, at = h[index[e]], (e - first) * heads
                    for k in range(heads):
                        share, gone, start = p[at + k], n[at + k], k * width
                        total[k] += share
                        negative_part[k] += gone
                        if masked:
                            share *= mask[e, k]
                            gone *= mask[e, k]
                        if lossy:
                            for d in range(width):
                                out[i, start + d] += share * row[start + d]
                                out_negative_part[i, start + d] += gone * row[start + d]
                        else:
                            for d in range(width):
                                out[i, start + d] += share * row[start + d]
            for k in range(heads):
                total[k] = 1 / total[k]
                negative_part[k] *= total[k]
                for d in range(k * width, (k + 1) * width):
                    out[i, d] *= total[k]
                if lossy:
                    for d in range(k * width, (k + 1) * width):
                        out_negative_part[i, d] *= total[k]


@loops(FAST_SUMS)
def gat_bwd_rows(
    indptr: Any,
    index: Any,
    edge: Any,
    h: Any,
    el: Any,
    node: Any,
    g: Any,
    mask: Any,
    slope: Any,
    grad_h: Any,
    grad_el: Any,
) -> None:
    """Over the transpose. ``node: [num_dst, 4, H]``: er, largest score, one over the sum, delta."""
    rows, heads = el.shape
    width = h.shape[1] // heads
    less, masked = slope[()], len(mask) > 0
    for chunk in numba.prange((rows + CHUNK_ROWS - 1) // CHUNK_ROWS):
        p = np.empty(_BLOCK_EDGES * heads, h.dtype)
        steep = np.empty(_BLOCK_EDGES * heads, h.dtype)
        through = np.empty(h.shape[1], h.dtype)  # sum of m p slope g
        for j in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
            begin, end, own = indptr[j], indptr[j + 1], el[j]
            into, into_el = grad_h[j], grad_el[j]
            through[:] = 0
            for first in range(begin, end, _BLOCK_EDGES):
                last = min(first + _BLOCK_EDGES, end)
                for e in range(first, last):
                    there, at = node[index[e]], (e - first) * heads
                    for k in range(heads):
                        score = own[k] + there[0, k]
                        p[at + k] = (score * less if score < 0 else score) - there[1, k]
                        steep[at + k] = less if score <= 0 else 1
                for cell in range((last - first) * heads):
                    p[cell] = exp(p[cell])
                for e in range(first, last):
                    row, there, at = g[index[e]], node[index[e]], (e - first) * heads
                    for k in range(heads):
                        share, start = p[at + k] * there[2, k], k * width
                        bent = share * steep[at + k]
                        into_el[k] -= bent * there[3, k]
                        if masked:
                            share *= mask[edge[e], k]
                            bent *= mask[edge[e], k]
                        for d in range(width):
                            into[start + d] += share * row[start + d]
                            through[start + d] += bent * row[start + d]
            for k in range(heads):
                along = h.dtype.type(0)
                for d in range(k * width, (k + 1) * width):
                    along += through[d] * h[j, d]
                into_el[k] += along
