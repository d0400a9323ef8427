"""Readouts over contiguous segments: the nodes of graph g are rows ``ptr[g]:ptr[g + 1]``."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(x: Tensor, ptr: Tensor) -> Tensor:
    """[G, D] sums of the rows of each segment; empty segments give 0.

    Args:
        x: [N, D] float.
        ptr: [G + 1] int, non-decreasing, from 0 to N.
    """
    segment = _segment(x, ptr)
    return x.new_zeros(ptr.numel() - 1, x.size(1)).index_add(0, segment, x)


def segment_mean(x: Tensor, ptr: Tensor) -> Tensor:
    """[G, D] means of the rows of each segment; empty segments give 0. Arguments as `segment_sum`."""
    return segment_sum(x, ptr) / ptr.diff().clamp(min=1).to(x.dtype)[:, None]


def segment_max(x: Tensor, ptr: Tensor) -> Tensor:
    """[G, D] largest entry of each segment and column; ties to the lowest row, empty segments give 0."""
    segment = _segment(x, ptr)
    rows, shape = x.size(0), (ptr.numel() - 1, x.size(1))
    if rows == 0:
        return segment_sum(x, ptr)
    where = segment[:, None].expand(x.shape)
    with torch.no_grad():
        wins = (x == _peak(x, ptr, segment).index_select(0, segment)) | x.isnan()
        row = torch.arange(rows, device=x.device)[:, None].expand(x.shape)
        winner = torch.full(shape, rows, device=x.device).scatter_reduce(0, where, row.where(wins, rows), "amin")
    return torch.where(winner < rows, x.gather(0, winner.clamp(max=rows - 1)), 0)


def segment_softmax(x: Tensor, ptr: Tensor) -> Tensor:
    """[N, D] softmax of each column within each segment."""
    segment = _segment(x, ptr)
    exponent = (x - _peak(x.detach(), ptr, segment).index_select(0, segment)).exp()
    total = x.new_zeros(ptr.numel() - 1, x.size(1)).index_add(0, segment, exponent)
    return exponent / total.index_select(0, segment)


def _peak(x: Tensor, ptr: Tensor, segment: Tensor) -> Tensor:
    """[G, D] largest entry, -inf where a segment is empty."""
    peak = x.new_full((ptr.numel() - 1, x.size(1)), -torch.inf)
    return peak.scatter_reduce(0, segment[:, None].expand(x.shape), x, "amax")


def _segment(x: Tensor, ptr: Tensor) -> Tensor:
    """[N] int64 segment of each row, after a check of the arguments."""
    if x.dim() != 2:
        raise ValueError(f"x wants shape [N, D], got {tuple(x.shape)}")
    if ptr.dim() != 1 or ptr.numel() == 0 or ptr.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ptr wants shape [G + 1] of int32 or int64, got {tuple(ptr.shape)} of {ptr.dtype}")
    if ptr.device != x.device:
        raise ValueError(f"ptr wants x's device {x.device}, got {ptr.device}")
    size = ptr.diff()
    if int(ptr[0]) != 0 or int(ptr[-1]) != x.size(0) or bool((size < 0).any()):
        raise ValueError(f"ptr wants to rise from 0 to N={x.size(0)}, got {int(ptr[0])}..{int(ptr[-1])}")
    graphs = torch.arange(ptr.numel() - 1, device=x.device)
    return torch.repeat_interleave(graphs, size.long(), output_size=x.size(0))
