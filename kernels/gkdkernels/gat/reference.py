"""The plain formula of `gat_aggregate`: a softmax over the in-edges of each node, then weighted messages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.graph import CSRGraph


def gat_aggregate_reference(
    graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None
) -> Tensor:
    p = gat_attention_reference(graph, el, er, slope)
    if mask is not None:
        p = p * mask.t()
    messages = p[:, :, None] * h.to(p.dtype).index_select(0, graph.index)  # [E, H, F]
    return messages.new_zeros(graph.num_dst, *h.shape[1:]).index_add(0, graph.row, messages).to(h.dtype)


def gat_attention_reference(graph: CSRGraph, el: Tensor, er: Tensor, slope: float) -> Tensor:
    """[E, H] coefficients, at least fp32."""
    wide = accumulation_dtype(el.dtype)
    score = F.leaky_relu(el.to(wide).index_select(0, graph.index) + er.to(wide).index_select(0, graph.row), slope)
    at = graph.row.long()[:, None].expand(score.shape)  # [E, H]
    nothing = score.new_zeros(graph.num_dst, el.size(1))
    peak = (nothing - torch.inf).scatter_reduce(0, at, score.detach(), "amax")
    exponent = (score - peak.index_select(0, graph.row)).exp()
    return exponent / nothing.index_add(0, graph.row, exponent).index_select(0, graph.row)
