"""Attention aggregation on CPUs: the algebra of `gat` on `embedding_bag`, head by head, as one head's edge values fit
the cache; no autograd. No [E, H, F] tensor: backward gathers the upstream gradient only, on the cached transpose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.dropout import keyed_mask
from gkdkernels.graph import CSRGraph
from gkdkernels.spmm.cpu import bag_sum, row_sum

_SAFE_RANGE = 60.0  # exp(-60) is far from fp32's smallest normal number, 1.2e-38


def forward(
    graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, dropout: float, key: int, *, needs_er_grad: bool
) -> list[Tensor]:
    """The output [num_dst, H, F], and tensors that `backward` needs.

    Args:
        needs_er_grad: whether `er` needs a gradient, for which a second sum is kept.
    """
    by_head = _by_head(h)  # [H, num_src, F]
    p, negative_part = _softmax(graph, el, er, slope)  # [H, E]
    kept = p
    if dropout > 0:
        kept = p * keyed_mask(p.shape, dropout, key, dtype=p.dtype, device=p.device)
    out = by_head.new_empty(by_head.size(0), graph.num_dst, by_head.size(2))
    out_negative_part = torch.empty_like(out) if needs_er_grad else out.new_empty(0)
    for head in range(by_head.size(0)):
        out[head] = bag_sum(graph, by_head[head], kept[head])
        if needs_er_grad:
            out_negative_part[head] = bag_sum(graph, by_head[head], kept[head] * negative_part[head])
    result = out.transpose(0, 1).to(h.dtype, memory_format=torch.contiguous_format)
    made = [result, by_head, out, out_negative_part, p, negative_part]
    return made if kept is p else [*made, kept]


def output_shapes(
    h: Tensor, num_dst: int, num_edges: int, *, needs_er_grad: bool, dropout: float
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what `forward` returns."""
    (num_src, heads, width), wide = h.shape, accumulation_dtype(h.dtype)
    out, edges = (heads, num_dst, width), (heads, num_edges)
    first = [((num_dst, heads, width), h.dtype), ((heads, num_src, width), wide), (out, wide)]
    return [
        *first,
        (out if needs_er_grad else (0,), wide),
        (edges, wide),
        (edges, wide),
        *([(edges, wide)] if dropout else []),
    ]


def tensors_for_backward(made: list[Tensor], h: Tensor, el: Tensor, er: Tensor) -> list[Tensor]:
    """What `backward` needs of the inputs and of the results of `forward`."""
    return made[1:]


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
    h, out, out_negative_part, p, negative_part, *masked = saved
    kept = masked[0] if masked else p
    g = _by_head(upstream)  # [H, num_dst, F]
    grad_h = torch.empty_like(h) if needs_h_grad or needs_el_grad else None
    grad_el = h.new_empty(graph.num_src if needs_el_grad else 0, h.size(0))
    grad_er = h.new_empty(graph.num_dst if needs_er_grad else 0, h.size(0))
    for head in range(h.size(0)):
        delta = (g[head] * out[head]).sum(-1)
        if needs_er_grad:
            q_lost = row_sum(p[head] * negative_part[head], graph.indptr)
            grad_er[:, head] = delta * q_lost - (g[head] * out_negative_part[head]).sum(-1)
        if grad_h is None:
            continue
        transposed = graph.transposed
        weight = kept[head].index_select(0, transposed.edge)
        grad_h[head] = bag_sum(transposed.graph, g[head], weight)
        if needs_el_grad:
            back_lost = bag_sum(
                transposed.graph, g[head], weight.mul_(negative_part[head].index_select(0, transposed.edge))
            )
            slopes = delta.index_select(0, graph.row).mul_(p[head]).mul_(1.0 - negative_part[head])
            through = slopes.new_zeros(graph.num_src).index_add_(0, graph.index, slopes)
            grad_el[:, head] = ((grad_h[head] - back_lost) * h[head]).sum(-1) - through
    final = h.new_empty(0) if grad_h is None else grad_h.transpose(0, 1)
    return [grad.to(upstream.dtype) for grad in (final, grad_el, grad_er)]


def _softmax(graph: CSRGraph, el: Tensor, er: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """[H, E] attention before dropout, and n, the negative part (1 - slope up to zero); at least fp32."""
    el, er = _wide(el).t().contiguous(), _wide(er).t().contiguous()  # [H, num_src], [H, num_dst]
    p = el.new_empty(el.size(0), graph.num_edges)
    for head in range(el.size(0)):
        torch.index_select(el[head], 0, graph.index, out=p[head])
        p[head] += er[head].index_select(0, graph.row)
    negative_part = (p <= 0).to(p.dtype).mul_(1.0 - slope)
    if p.numel() == 0:
        return p, negative_part
    F.leaky_relu_(p, slope)
    # leaky_relu is monotone and 1-Lipschitz: the largest `el` of all sources bounds each row's scores from above,
    # and no score lies further below that bound than the range of `el`. A true row maximum is needed only
    # where exp would underflow.
    low, high = el.aminmax(dim=1, keepdim=True)
    if float((high - low).max()) < _SAFE_RANGE:
        peak = F.leaky_relu(high + er, slope)
    else:
        at = graph.row.long().expand(p.shape)
        peak = torch.full_like(er, -torch.inf).scatter_reduce(1, at, p, "amax")
    for head in range(el.size(0)):
        p[head] -= peak[head].index_select(0, graph.row)
    p.exp_()
    for head in range(el.size(0)):
        p[head] /= row_sum(p[head], graph.indptr).index_select(0, graph.row)
    return p, negative_part


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(accumulation_dtype(x.dtype))


def _by_head(x: Tensor) -> Tensor:
    """[H, N, F] contiguous, at least fp32, from [N, H, F]."""
    return _wide(x).transpose(0, 1).contiguous()
