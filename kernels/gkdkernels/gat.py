"""Attention aggregation of GAT (Velickovic et al. 2018, eqs. 1-4): the reference, and the CPU path.

``s_e = leaky_relu(el_j + er_i)``, ``p = softmax`` of s over the in-edges of i, ``o_i = sum_e m_e p_e h_j`` with a
dropout mask m. With ``n_e = (1 - slope) [el_j + er_i < 0]``, the part of the slope that the negative scores lose, the
gradients need no dot product per edge. For an upstream g and ``delta_i = <g_i, o_i>``:

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

from gkdkernels.dispatch import choose, declare
from gkdkernels.dropout import keyed_mask
from gkdkernels.graph import CSRGraph
from gkdkernels.spmm import bag_sum

_BACKENDS = declare("gat_aggregate", "reference", "cpu")
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
        key: seed of the dropout mask, a function of (key, head, edge id); needed when `dropout` > 0.
        backend: "auto", "reference" (any device) or "cpu".

    Returns:
        [num_dst, H, F]; rows without edges are 0. Differentiable once ("reference": any number of times).

    Raises:
        ValueError: an unknown `backend`, a missing key, a value out of range, or a wrong shape, dtype or device.
    """
    _check(graph, h, el, er, negative_slope, dropout, key)
    fast = choose("gat_aggregate", backend, _BACKENDS, h) == "cpu"
    mask = None
    if dropout > 0 and key is not None:
        wide = torch.promote_types(h.dtype, torch.float32)
        mask = keyed_mask(torch.Size((el.size(1), graph.num_edges)), dropout, key, dtype=wide, device=h.device)
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
        p = p * mask.t()
    messages = p[:, :, None] * h.to(wide).index_select(0, graph.index)  # [E, H, F]
    return messages.new_zeros(graph.num_dst, *h.shape[1:]).index_add(0, graph.row, messages).to(h.dtype)


class _OneGather(torch.autograd.Function):
    """The algebra of the module's docstring on `embedding_bag`, head by head: one head's edge values fit the cache."""

    @staticmethod
    def forward(
        ctx: Any, graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None
    ) -> Tensor:
        by_head = _by_head(h)  # [H, num_src, F]
        p, lost = _softmax(graph, el, er, slope)  # [H, E]
        kept = p if mask is None else p * mask
        out = by_head.new_empty(by_head.size(0), graph.num_dst, by_head.size(2))
        out_lost = torch.empty_like(out) if ctx.needs_input_grad[3] else None
        for head in range(by_head.size(0)):
            out[head] = bag_sum(graph, by_head[head], kept[head])
            if out_lost is not None:
                out_lost[head] = bag_sum(graph, by_head[head], kept[head] * lost[head])
        ctx.graph, ctx.dtype = graph, h.dtype
        ctx.save_for_backward(by_head, out, out_lost, p, None if mask is None else kept, lost)
        return out.transpose(0, 1).to(h.dtype, memory_format=torch.contiguous_format)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        graph: CSRGraph = ctx.graph
        h, out, out_lost, p, kept, lost = ctx.saved_tensors
        kept = p if kept is None else kept
        g = _by_head(upstream)  # [H, num_dst, F]
        _, needs_h, needs_el, needs_er = ctx.needs_input_grad[:4]
        grad_h = torch.empty_like(h) if needs_h or needs_el else None
        grad_el = h.new_empty(graph.num_src, h.size(0)) if needs_el else None
        grad_er = h.new_empty(graph.num_dst, h.size(0)) if needs_er else None
        for head in range(h.size(0)):
            delta = (g[head] * out[head]).sum(-1)
            if grad_er is not None:
                q_lost = _edge_sum(graph.row, p[head] * lost[head], graph.num_dst)
                grad_er[:, head] = delta * q_lost - (g[head] * out_lost[head]).sum(-1)
            if grad_h is None:
                continue
            turned = graph.transposed
            weight = kept[head].index_select(0, turned.edge)
            grad_h[head] = bag_sum(turned.graph, g[head], weight)
            if grad_el is not None:
                back_lost = bag_sum(turned.graph, g[head], weight.mul_(lost[head].index_select(0, turned.edge)))
                slopes = delta.index_select(0, graph.row).mul_(p[head]).mul_(1.0 - lost[head])
                through = _edge_sum(graph.index, slopes, graph.num_src)
                grad_el[:, head] = ((grad_h[head] - back_lost) * h[head]).sum(-1) - through
        final = None if grad_h is None else grad_h.transpose(0, 1)
        grads = (None if grad is None else grad.to(ctx.dtype) for grad in (final, grad_el, grad_er))
        return None, *grads, None, None


def _softmax(graph: CSRGraph, el: Tensor, er: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """[H, E] attention before dropout, and n, the lost part of the slope; at least fp32."""
    el, er = _wide(el).t().contiguous(), _wide(er).t().contiguous()  # [H, num_src], [H, num_dst]
    p = el.new_empty(el.size(0), graph.num_edges)
    for head in range(el.size(0)):
        torch.index_select(el[head], 0, graph.index, out=p[head])
        p[head] += er[head].index_select(0, graph.row)
    lost = (p < 0).to(p.dtype).mul_(1.0 - slope)
    if graph.num_edges == 0:
        return p, lost
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
        p[head] /= _edge_sum(graph.row, p[head], graph.num_dst).index_select(0, graph.row)
    return p, lost


def _edge_sum(at: Tensor, value: Tensor, size: int) -> Tensor:
    """[size] sums of ``value: [E]`` over the edges of each node ``at: [E]``, in the order of the edges."""
    return value.new_zeros(size).index_add_(0, at, value)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _by_head(x: Tensor) -> Tensor:
    """[H, N, F] contiguous, at least fp32, from [N, H, F]."""
    return _wide(x).transpose(0, 1).contiguous()


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
