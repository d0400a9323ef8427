"""Attention aggregation of GAT (Velickovic et al. 2018, eqs. 1-4): the reference, and the CPU path.

``s_e = leaky_relu(el_j + er_i)``, ``p = softmax`` of s over the in-edges of i, ``o_i = sum_e m_e p_e h_j`` with a dropout
mask m. With ``n_e = (1 - slope) [el_j + er_i < 0]``, the part of the slope that the negative scores lose, the gradients
need no dot product per edge. For an upstream g and ``delta_i = <g_i, o_i>``:

    forward    o = sum m p h        o_n = sum m p n h        q_n = sum p n                  (over in-edges)
    d er_i = delta_i q_n - <g_i, o_n>
    backward   d h_j = sum m p g    b_n = sum m p n g        t = sum p (1 - n) delta        (over out-edges)
    d el_j = <d h_j - b_n, h_j> - t_j

so that backward gathers g only: two weighted sums on the cached transpose, no [E, H, F] tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.dispatch import choose
from gkdkernels.dropout import keyed_mask
from gkdkernels.graph import CSRGraph
from gkdkernels.spmm import bag_sum

_SAFE_RANGE = 60.0  # exp(-60) is far from fp32's smallest normal number, 1.2e-38


def gat_aggregate(
    graph: CSRGraph,
    h: Tensor,
    el: Tensor,
    er: Tensor,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    key: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention-weighted sums of the sources' features over the in-edges.

    Args:
        graph: num_dst x num_src, E edges.
        h: [num_src, H, F] float, H heads.
        el: [num_src, H] the sources' part of the score.
        er: [num_dst, H] the destinations' part.
        negative_slope: of the leaky ReLU, in [0, 1].
        dropout: probability that a coefficient is dropped, after the softmax.
        key: seed of the dropout mask, a function of (key, edge id, head); needed when `dropout` > 0.
        backend: "auto", "reference" (any device) or "cpu".

    Returns:
        [num_dst, H, F]; rows without edges are 0. Differentiable once ("reference": any number of times).

    Raises:
        ValueError: an unknown `backend`, a missing key, a value out of range, or a wrong shape, dtype or device.
    """
    _check(graph, h, el, er, negative_slope, dropout, key)
    fast = choose("gat_aggregate", backend, ("reference", "cpu"), h) == "cpu"
    mask = None
    if dropout > 0 and key is not None:
        wide = torch.promote_types(h.dtype, torch.float32)
        mask = keyed_mask(torch.Size((graph.num_edges, el.size(1))), dropout, key, dtype=wide, device=h.device)
    if fast:
        out: Tensor = _OneGather.apply(graph, h, el, er, negative_slope, mask)  # type: ignore[no-untyped-call]
        return out
    return _reference(graph, h, el, er, negative_slope, mask)


def _reference(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None) -> Tensor:
    wide = torch.promote_types(h.dtype, torch.float32)
    score = F.leaky_relu(el.to(wide).index_select(0, graph.index) + er.to(wide).index_select(0, graph.row), slope)
    at = graph.row.long()[:, None].expand(score.shape)  # [E, H]
    nothing = score.new_zeros(graph.num_dst, el.size(1))
    peak = (nothing - torch.inf).scatter_reduce(0, at, score.detach(), "amax")
    exponent = (score - peak.index_select(0, graph.row)).exp()
    p = exponent / nothing.index_add(0, graph.row, exponent).index_select(0, graph.row)
    if mask is not None:
        p = p * mask
    messages = p[:, :, None] * h.to(wide).index_select(0, graph.index)  # [E, H, F]
    return messages.new_zeros(graph.num_dst, *h.shape[1:]).index_add(0, graph.row, messages).to(h.dtype)


class _OneGather(torch.autograd.Function):
    """The algebra of the module's docstring on `embedding_bag`, one head at a time."""

    @staticmethod
    def forward(
        ctx: Any, graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None
    ) -> Tensor:
        p, negative = _softmax(graph, el, er, slope)  # [E, H]
        kept = p if mask is None else p * mask
        out = _heads_sum(graph, h, kept)
        if any(ctx.needs_input_grad):
            lost = negative.to(p.dtype).mul_(1.0 - slope)
            out_lost = _heads_sum(graph, h, kept * lost) if ctx.needs_input_grad[3] else None
            ctx.graph = graph
            ctx.save_for_backward(h, out, out_lost, p, None if mask is None else kept, lost)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        graph: CSRGraph = ctx.graph
        h, out, out_lost, p, kept, lost = ctx.saved_tensors
        kept = p if kept is None else kept
        wide = p.dtype
        delta = (g * out).sum(-1, dtype=wide)  # [num_dst, H]
        grad_el = grad_er = None
        if ctx.needs_input_grad[3]:
            q_lost = _edge_sum(graph, p * lost)
            grad_er = (delta * q_lost - (g * out_lost).sum(-1, dtype=wide)).to(h.dtype)
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return None, None, None, grad_er, None, None
        turned = graph.transposed
        kept = kept.index_select(0, turned.edge)
        grad_h = _heads_sum(turned.graph, g, kept)
        if ctx.needs_input_grad[2]:
            back_lost = _heads_sum(turned.graph, g, kept.mul_(lost.index_select(0, turned.edge)))
            slopes = p * (1.0 - lost) * delta.index_select(0, graph.row)
            through = _edge_sum(turned.graph, slopes, turned.edge)
            grad_el = (((grad_h - back_lost) * h).sum(-1, dtype=wide) - through).to(h.dtype)
        return None, grad_h, grad_el, grad_er, None, None


def _softmax(graph: CSRGraph, el: Tensor, er: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """[E, H] attention before dropout, and where the score's argument is negative; at least fp32."""
    wide = torch.promote_types(el.dtype, torch.float32)
    el, er = el.to(wide), er.to(wide)
    raw = el.index_select(0, graph.index).add_(er.index_select(0, graph.row))
    negative = raw < 0
    score = F.leaky_relu_(raw, slope)
    if graph.num_edges == 0:
        return score, negative
    # leaky_relu is monotone and 1-Lipschitz: the largest `el` of all sources bounds each row's scores from above,
    # and no score lies further below that bound than the range of `el`. A true row maximum is needed only
    # where exp would underflow.
    low, high = el.aminmax(dim=0)
    if float((high - low).max()) < _SAFE_RANGE:
        peak = F.leaky_relu(high + er, slope)
    else:
        at = graph.row.long()[:, None].expand(score.shape)
        peak = torch.full_like(er, -torch.inf).scatter_reduce(0, at, score, "amax")
    p = score.sub_(peak.index_select(0, graph.row)).exp_()
    return p.div_(_edge_sum(graph, p).index_select(0, graph.row)), negative


def _edge_sum(graph: CSRGraph, value: Tensor, edge: Tensor | None = None) -> Tensor:
    """[num_dst, H] row sums of ``value: [E, H]``; `edge`: position of each edge in `value`, if not in order."""
    if graph.num_edges == 0:
        return value.new_zeros(graph.num_dst, value.size(1))
    if edge is None:
        edge = torch.arange(graph.num_edges, device=value.device)
    return torch.embedding_bag(value, edge, graph.indptr.long(), mode=0, include_last_offset=True)[0]


def _heads_sum(graph: CSRGraph, x: Tensor, weight: Tensor) -> Tensor:
    """[num_dst, H, F] sums of ``x: [num_src, H, F]`` with one weight per edge and head, ``weight: [E, H]``."""
    by_head = x.to(weight.dtype).transpose(0, 1).contiguous()  # [H, num_src, F]
    weights = weight.t().contiguous()  # [H, E]
    out = x.new_empty(graph.num_dst, *x.shape[1:])
    for head in range(x.size(1)):
        out[:, head] = bag_sum(graph, by_head[head], weights[head])
    return out


def _check(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, dropout: float, key: int | None) -> None:
    if h.dim() != 3 or h.size(0) != graph.num_src:
        raise ValueError(f"h wants shape [{graph.num_src}, H, F], got {tuple(h.shape)}")
    for name, tensor, rows in (("el", el, graph.num_src), ("er", er, graph.num_dst)):
        if tensor.shape != (rows, h.size(1)):
            raise ValueError(f"{name} wants shape [{rows}, {h.size(1)}], got {tuple(tensor.shape)}")
        if tensor.dtype != h.dtype or tensor.device != h.device:
            raise ValueError(f"{name} wants {h.dtype} on {h.device} as h, got {tensor.dtype} on {tensor.device}")
    if not h.is_floating_point():
        raise ValueError(f"h wants a float dtype, got {h.dtype}")
    if h.device != graph.device:
        raise ValueError(f"h wants the graph's device {graph.device}, got {h.device}")
    if not 0.0 <= slope <= 1.0:
        raise ValueError(f"negative_slope wants a value in [0, 1], got {slope}")
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout wants a probability in [0, 1], got {dropout}")
    if dropout > 0 and key is None:
        raise ValueError("key wants a seed when dropout > 0, got None")
