"""Neighbour aggregation on CPUs with what torch ships: row sums, row maxima, one dot product per edge; no autograd.

`embedding_bag` gathers once per edge and keeps no [E, D] tensor; every output row is one sum in a fixed order, so that
two runs are bitwise equal. The maximum is that of `torch.sparse.mm(reduce="amax")`, which also finds the winning edge;
its backward is one scatter of [num_dst, D] terms, each thread with columns of its own.
Every function takes K stacked inputs.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.graph import CSRGraph

_CHUNK_ELEMENTS = 1 << 18  # [chunk, D] temporaries of the edge dot product stay in the cache


def bag_sum(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    """[num_dst, D] weighted row sums of ``x: [num_src, D]``."""
    if graph.num_edges == 0 or x.size(1) == 0:
        return x.new_zeros(graph.num_dst, x.size(1))
    return torch.embedding_bag(
        x.detach().contiguous(),
        graph.index,
        graph.indptr,
        mode=0,
        per_sample_weights=None if weight is None else weight.detach().contiguous(),
        include_last_offset=True,
    )[0]


def edge_dot(graph: CSRGraph, x: Tensor, g: Tensor) -> Tensor:
    """[E] ``<g_i, x_j>`` of every edge j -> i, ``x: [num_src, D]``, ``g: [num_dst, D]``."""
    out, wide = x.new_empty(graph.num_edges), accumulation_dtype(x.dtype)
    step = max(1, _CHUNK_ELEMENTS // max(1, x.size(1)))
    for start in range(0, graph.num_edges, step):
        edges = slice(start, start + step)
        product = g.index_select(0, graph.row[edges]).to(wide).mul_(x.index_select(0, graph.index[edges]))
        out[edges] = product.sum(-1)
    return out


def row_sum(value: Tensor, indptr: Tensor) -> Tensor:
    """[N] sums of ``value: [E]`` over each row's edges."""
    return torch.segment_reduce(value, "sum", offsets=indptr, unsafe=True, initial=0.0)


def row_max(value: Tensor, indptr: Tensor) -> Tensor:
    """[N] largest ``value: [E]`` of each row's edges, -inf for none."""
    return torch.segment_reduce(value, "max", offsets=indptr, unsafe=True, initial=-torch.inf)


def sum_rows(
    graph: CSRGraph, x: Tensor, weight: Tensor | None, left: Tensor | None = None, right: Tensor | None = None
) -> Tensor:
    """[K, num_dst, D] weighted row sums of ``x: [K, num_src, D]``; node factors come as edge weights on this path."""
    if left is not None or right is not None:
        raise ValueError("left and right: expected None on the CPU, got tensors; use backend='triton'")
    if x.size(0) == 1:
        return bag_sum(graph, x[0], weight)[None]
    out = x.new_empty(x.size(0), graph.num_dst, x.size(2))
    for k in range(x.size(0)):
        out[k] = bag_sum(graph, x[k], weight)
    return out


def edge_products(graph: CSRGraph, x: Tensor, g: Tensor) -> Tensor:
    """[E] ``sum_k <g_i, x_j>`` for ``x: [K, num_src, D]``, ``g: [K, num_dst, D]``."""
    if x.size(0) == 1:
        return edge_dot(graph, x[0], g[0])
    out = x.new_zeros(graph.num_edges, dtype=accumulation_dtype(x.dtype))
    for k in range(x.size(0)):
        out += edge_dot(graph, x[k], g[k])
    return out.to(x.dtype)


def arg_dtype(num_edges: int) -> torch.dtype:
    """The dtype of winning edges."""
    return torch.int64


def max_rows(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """[K, num_dst, D] maxima of ``w_e x_j``, and the edges that won, -1 in rows without edges."""
    y = x.new_zeros(x.size(0), graph.num_dst, x.size(2))
    arg = torch.full(y.shape, -1)
    if graph.num_edges == 0 or x.size(2) == 0:
        return y, arg
    # products in half precision are compared before they are rounded
    dtype = x.dtype if weight is None else accumulation_dtype(x.dtype)
    value = x.new_ones(graph.num_edges) if weight is None else weight.detach().to(dtype).contiguous()
    # among minus infinities no winner is found: their tie goes to the lowest edge, too
    first = torch.where(graph.degree > 0, graph.indptr[:-1], -1).long()[:, None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(
            graph.indptr, graph.index, value, (graph.num_dst, graph.num_src), check_invariants=False
        )
    for k in range(x.size(0)):
        with torch.enable_grad():  # the winner is sought for the sake of a gradient only
            features = x[k].detach().to(dtype).contiguous().requires_grad_()
            top, winner = torch.ops.aten._sparse_mm_reduce_impl(matrix, features, "amax")
        y[k] = top.detach()
        arg[k] = torch.where(winner == graph.num_edges, first, winner)
    return y, arg


def max_gradient(graph: CSRGraph, g: Tensor, weight: Tensor | None, arg: Tensor) -> Tensor:
    """[K, num_src, D] gradient of x for ``g: [K, num_dst, D]``: one term for each output element."""
    wide = accumulation_dtype(g.dtype)
    out = g.new_zeros(g.size(0), graph.num_src, g.size(2), dtype=wide)
    if graph.num_edges == 0:
        return out.to(g.dtype)
    for k in range(g.size(0)):
        edge, through = arg[k].clamp(min=0), g[k].where(arg[k] >= 0, 0).to(wide)
        if weight is not None:
            through = through * weight.detach()[edge]
        out[k].scatter_add_(0, graph.index[edge].long(), through)
    return out.to(g.dtype)


def max_edge_gradient(graph: CSRGraph, x: Tensor, g: Tensor, arg: Tensor) -> Tensor:
    """[E] gradient of the weight."""
    out = g.new_zeros(graph.num_edges, dtype=accumulation_dtype(g.dtype))
    if graph.num_edges == 0:
        return out.to(g.dtype)
    for k in range(g.size(0)):
        edge = arg[k].clamp(min=0)
        terms = g[k].where(arg[k] >= 0, 0).to(out.dtype) * x[k].detach().gather(0, graph.index[edge].long())
        out.index_add_(0, edge.flatten(), terms.flatten())
    return out.to(g.dtype)
