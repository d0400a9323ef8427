"""Neighbour maxima on the CPU as compiled loops (extra `numba`), bitwise equal to those of `spmm.cpu`.

Forward goes over the edges of each row once and keeps the edge that won; backward adds one term for each element of
the output, each thread to columns of its own, in the order of the rows: no atomics, and no bit depends on the number of
threads. The loops take no liberty with floating point. Sums are not here: `embedding_bag` is as fast as a loop.
"""

from __future__ import annotations

from typing import Any

import numba
import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.numba_tools import CHUNK_ROWS, loops, run
from gkdkernels.graph import CSRGraph

_MOST_COLUMNS = 16  # of a thread at a time: a cache line of fp32


def arg_dtype(num_edges: int) -> torch.dtype:
    """The dtype of winning edges."""
    return torch.int32 if num_edges < 2**31 else torch.int64


def max_rows(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """[K, num_dst, D] maxima of ``w_e x_j``, and the edges that won, -1 in rows without edges."""
    wide = x.detach().to(accumulation_dtype(x.dtype))
    y = wide.new_empty(x.size(0), graph.num_dst, x.size(2))
    arg = y.new_empty(y.shape, dtype=arg_dtype(graph.num_edges))
    factor = _factor(weight, wide.dtype)
    for k in range(x.size(0)):
        run(spmm_fwd_max_rows, graph.indptr, graph.index, wide[k].contiguous(), factor, y[k], arg[k])
    return y.to(x.dtype), arg


def max_gradient(graph: CSRGraph, g: Tensor, weight: Tensor | None, arg: Tensor) -> Tensor:
    """[K, num_src, D] gradient of x for ``g: [K, num_dst, D]``."""
    wide = g.detach().to(accumulation_dtype(g.dtype)).contiguous()
    out = wide.new_zeros(g.size(0), graph.num_src, g.size(2))
    columns = max(1, min(_MOST_COLUMNS, -(-g.size(2) // torch.get_num_threads())))
    for k in range(g.size(0)):
        run(spmm_bwd_max_gradient, graph.index, wide[k], _factor(weight, wide.dtype), arg[k], columns, out[k])
    return out.to(g.dtype)


def max_edge_gradient(graph: CSRGraph, x: Tensor, g: Tensor, arg: Tensor) -> Tensor:
    """[E] gradient of the weight."""
    dtype = accumulation_dtype(g.dtype)
    out = g.new_zeros(graph.num_edges, dtype=dtype)
    for k in range(g.size(0)):
        taken = (t[k].detach().to(dtype).contiguous() for t in (x, g))
        run(spmm_bwd_max_edge_gradient, graph.index, *taken, arg[k], out)
    return out.to(g.dtype)


def _factor(weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[E], or [0] for ones."""
    return torch.empty(0, dtype=dtype) if weight is None else weight.detach().to(dtype).contiguous()


@loops()
def spmm_fwd_max_rows(indptr: Any, index: Any, x: Any, weight: Any, y: Any, arg: Any) -> None:
    rows, width = y.shape
    for chunk in numba.prange((rows + CHUNK_ROWS - 1) // CHUNK_ROWS):
        for i in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
            best, won = y[i], arg[i]
            start, stop = indptr[i], indptr[i + 1]
            if start == stop:
                best[:], won[:] = 0, -1
            for e in range(start, stop):
                there, edge = x[index[e]], arg.dtype.type(e)
                w = weight[e] if weight.size else x.dtype.type(1)
                if e == start:
                    for d in range(width):
                        best[d], won[d] = w * there[d], edge
                else:
                    for d in range(width):
                        value, top = w * there[d], best[d]
                        wins = (not value <= top) & (top == top)  # a tie stays with the lowest edge, and so does NaN
                        best[d] = value if wins else top
                        won[d] = edge if wins else won[d]


@loops()
def spmm_bwd_max_gradient(index: Any, g: Any, weight: Any, arg: Any, columns: int, out: Any) -> None:
    rows, width = g.shape
    for block in numba.prange((width + columns - 1) // columns):
        for i in range(rows):
            for d in range(block * columns, min(width, (block + 1) * columns)):
                e = arg[i, d]
                if e >= 0:
                    out[index[e], d] += g[i, d] * weight[e] if weight.size else g[i, d]


@loops()
def spmm_bwd_max_edge_gradient(index: Any, x: Any, g: Any, arg: Any, out: Any) -> None:
    rows, width = g.shape
    for chunk in numba.prange((rows + CHUNK_ROWS - 1) // CHUNK_ROWS):
        for i in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
            for d in range(width):
                e = arg[i, d]
                if e >= 0:  # an edge belongs to one row: no other thread adds to it
                    out[e] += g[i, d] * x[index[e], d]
