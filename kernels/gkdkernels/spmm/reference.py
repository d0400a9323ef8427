"""The plain formula of `spmm`: write the messages of all edges, then reduce them. Any device, any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.graph import CSRGraph


def _messages(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    """[..., E, D] ``w_e x_j``, half precisions raised to fp32."""
    wide = accumulation_dtype(x.dtype)
    messages = x.to(wide).index_select(-2, graph.index)
    return messages if weight is None else messages * weight.to(wide)[:, None]


def sum_reference(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    messages = _messages(graph, x, weight)
    y = messages.new_zeros(*x.shape[:-2], graph.num_dst, x.size(-1))
    return y.index_add(-2, graph.row, messages).to(x.dtype)


def max_reference(graph: CSRGraph, x: Tensor, weight: Tensor | None) -> Tensor:
    messages = _messages(graph, x, weight)  # [..., E, D]
    shape = (*x.shape[:-2], graph.num_dst, x.size(-1))
    if graph.num_edges == 0:
        return sum_reference(graph, x, weight)
    row = graph.row.long()[:, None].expand(messages.shape)
    with torch.no_grad():
        top = messages.new_full(shape, -torch.inf).scatter_reduce(-2, row, messages, "amax")
        wins = (messages == top.gather(-2, row)) | messages.isnan()
        edge = torch.arange(graph.num_edges, device=x.device)[:, None].expand(messages.shape)
        candidate = edge.where(wins, graph.num_edges)
        winner = torch.full(shape, graph.num_edges, device=x.device).scatter_reduce(-2, row, candidate, "amin")
    y = messages.gather(-2, winner.clamp(max=graph.num_edges - 1))
    return torch.where(winner < graph.num_edges, y, 0).to(x.dtype)


def sum_by_torch_scatter(graph: CSRGraph, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """A competitor for benchmarks: it writes the [E, D] messages, and accumulates in `x`'s dtype."""
    from torch_scatter import segment_csr

    messages = x.index_select(-2, graph.index)
    if weight is not None:
        messages = messages * weight[:, None]
    indptr = graph.indptr.long()
    y: Tensor = segment_csr(messages, indptr if x.dim() == 2 else indptr.expand(x.size(0), -1), reduce=reduce)
    return y


def edge_dot_reference(graph: CSRGraph, y: Tensor, x: Tensor) -> Tensor:
    """[E] ``<y_i, x_j>``."""
    wide = accumulation_dtype(x.dtype)
    return (y.to(wide).index_select(0, graph.row) * x.to(wide).index_select(0, graph.index)).sum(-1).to(x.dtype)
