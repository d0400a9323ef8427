"""The plain formulas of the readouts, which are also the path of CPUs. ``segment: [N]`` is the segment of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.graph import CSRGraph


def segment_sum_reference(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """[G, D] sums of the rows of each segment."""
    wide = accumulation_dtype(x.dtype) if x.is_floating_point() else x.dtype
    return x.new_zeros(ptr.numel() - 1, x.size(1), dtype=wide).index_add(0, segment, x.to(wide)).to(x.dtype)


def segment_max_reference(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """[G, D] largest entry of each segment and column; ties to the lowest row, 0 where a segment is empty."""
    rows, shape = x.size(0), (ptr.numel() - 1, x.size(1))
    if rows == 0:
        return segment_sum_reference(x, ptr, segment)
    where = segment[:, None].expand(x.shape)
    with torch.no_grad():
        wins = (x == _peak(x, ptr, segment).index_select(0, segment)) | x.isnan()
        row = torch.arange(rows, device=x.device)[:, None].expand(x.shape)
        winner = torch.full(shape, rows, device=x.device).scatter_reduce(0, where, row.where(wins, rows), "amin")
    return torch.where(winner < rows, x.gather(0, winner.clamp(max=rows - 1)), 0)


def segment_softmax_reference(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """[N, D] softmax of each column within each segment."""
    wide = x.to(accumulation_dtype(x.dtype))
    exponent = (wide - _peak(wide.detach(), ptr, segment).index_select(0, segment)).exp()
    total = segment_sum_reference(exponent, ptr, segment)
    return (exponent / total.index_select(0, segment)).to(x.dtype)


def _peak(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """[G, D] largest entry, -inf where a segment is empty."""
    peak = x.new_full((ptr.numel() - 1, x.size(1)), -torch.inf)
    return peak.scatter_reduce(0, segment[:, None].expand(x.shape), x, "amax")


def edge_softmax_reference(graph: CSRGraph, score: Tensor) -> Tensor:
    """[E, H] softmax of each column within the edges of each row."""
    return segment_softmax_reference(score, graph.indptr, graph.row.long())
