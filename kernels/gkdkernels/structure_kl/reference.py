"""The plain formula of `edge_log_probs`: a kernel of both ends of every edge, then a softmax over in-edges."""

from __future__ import annotations

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.graph import CSRGraph
from gkdkernels.structure_kl.kernel_functions import MEASURE, score, width_of, within_range


def edge_log_probs_reference(graph: CSRGraph, x: Tensor, kernel: str, sigma: float | None) -> Tensor:
    measure = _measure_reference(graph, x.to(accumulation_dtype(x.dtype)), MEASURE[kernel])
    s = score(kernel, measure, width_of(kernel, measure, sigma))
    row = graph.row.long()
    nothing = s.new_zeros(graph.num_dst)
    peak = (nothing - torch.inf).scatter_reduce(0, row, s.detach(), "amax")
    shifted = s - peak.index_select(0, row)
    total = nothing.index_add(0, row, shifted.exp())
    return shifted - total.index_select(0, row).log()


def _measure_reference(graph: CSRGraph, x: Tensor, kind: str) -> Tensor:
    if kind == "cosine":
        x, _ = within_range(x)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        tiny = torch.finfo(x.dtype).tiny
        x = torch.where(norm <= tiny, 0.0, x / norm.clamp(min=tiny))  # NaN is above, and shows
        return (x.index_select(0, graph.index) * x.index_select(0, graph.row)).sum(-1)
    difference = x.index_select(0, graph.index) - x.index_select(0, graph.row)  # [E, F]
    return difference.abs().sum(-1) if kind == "l1" else difference.square().sum(-1)
