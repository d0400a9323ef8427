"""Attention aggregation of GAT (Velickovic et al. 2018, eqs. 1-4).

``s_e = leaky_relu(el_j + er_i)``, ``p = softmax`` of s over the in-edges of i, ``o_i = sum_e m_e p_e h_j`` with a
dropout mask m. With ``n_e = (1 - slope) [el_j + er_i <= 0]``, the part of the slope that scores not above 0 lose, the
gradients need no dot product per edge. For an upstream g and ``delta_i = <g_i, o_i>``:

    forward    o = sum m p h        o_n = sum m p n h        q_n = sum p n                  (over in-edges)
    d er_i = delta_i q_n - <g_i, o_n>
    backward   d h_j = sum m p g    b_n = sum m p n g        t = sum p (1 - n) delta        (over out-edges)
    d el_j = <d h_j - b_n, h_j> - t_j

so that backward gathers g only: two weighted sums on the cached transpose, no [E, H, F] tensor.

The plain formula is in `reference.py`; `gat.cpu`, `gat.numba` and `gat.triton` are the fast paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off, autocast_on, promoted
from gkdkernels.core.derivatives import Link, apply_once, link_to, once
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.dropout import keyed_mask
from gkdkernels.core.registration import register
from gkdkernels.gat import cpu as gat_cpu
from gkdkernels.gat.reference import gat_aggregate_reference
from gkdkernels.graph import CSRGraph, check_graph

_BACKENDS = declare("gat_aggregate", "reference", "cpu", "triton", "numba")


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
        h: [num_src, H, F] float, H heads; under `torch.autocast` `h`, `el` and `er` are cast to the widest of theirs.
        el: [num_src, H] the sources' part of the score.
        er: [num_dst, H] the destinations' part.
        negative_slope: of the leaky ReLU, in [0, 1].
        dropout: probability that a coefficient is dropped, after the softmax.
        key: seed of the dropout mask, a function of (key, head, edge id); needed when `dropout` > 0.
        backend: "auto", "reference" (any device), "cpu", "numba" (extra; only when named: differs in rounding
            from "cpu": another summation order; the mask is the same), or "triton", whose mask is another draw for the
            same key: `gat.triton.dropout_mask` (a counter that the kernels evaluate edge by edge, in forward and in
            backward).

    Returns:
        [num_dst, H, F]; rows without edges are 0. Differentiable once ("reference": any number of times).

    Raises:
        ValueError: an unknown `backend`, a missing key, a value out of range, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[1, 2], [0, 0]]), 3)  # 1 -> 0, 2 -> 0
        >>> h = torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1)  # one head of width 1
        >>> el, er = torch.tensor([[0.0], [0.0], [50.0]]), torch.zeros(3, 1)
        >>> gat_aggregate(graph, h, el, er).flatten()  # node 0 attends to node 2 alone
        tensor([5., 0., 0.])
    """
    if autocast_on(h.device):
        wide = promoted(h, el, er)
        with autocast_off(h.device):
            options = {"negative_slope": negative_slope, "dropout": dropout, "key": key, "backend": backend}
            return gat_aggregate(graph, *wide, **options)
    _check(graph, h, el, er, negative_slope, dropout, key)
    chosen = choose("gat_aggregate", backend, _BACKENDS, h)
    if chosen != "reference":
        settings = (float(negative_slope), float(dropout), key or 0)
        link = link_to(h, el, er)
        out: Tensor = apply_once("gat_aggregate", _OneGather, graph, h, el, er, *settings, chosen, link)
        return out
    mask = None
    if dropout > 0 and key is not None:
        wide = accumulation_dtype(h.dtype)
        mask = keyed_mask(torch.Size((el.size(1), graph.num_edges)), dropout, key, dtype=wide, device=h.device)
    return gat_aggregate_reference(graph, h, el, er, negative_slope, mask)


class _OneGather(torch.autograd.Function):
    """The algebra of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any,
        graph: CSRGraph,
        h: Tensor,
        el: Tensor,
        er: Tensor,
        slope: float,
        dropout: float,
        key: int,
        backend: str,
        link: Link | None,
    ) -> Tensor:
        made = _forward(graph, h, el, er, slope, dropout, key, ctx.needs_input_grad[3], backend)
        ctx.graph, ctx.settings, ctx.backend, ctx.link = graph, (slope, dropout, key), backend, link
        ctx.save_for_backward(*_engine(backend).tensors_for_backward(made, h, el, er))
        return made[0]

    @staticmethod
    @once("gat_aggregate")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        wanted, (slope, dropout, key) = ctx.needs_input_grad[1:4], ctx.settings
        grads = _backward(ctx.graph, list(ctx.saved_tensors), g, slope, dropout, key, wanted, ctx.backend)
        chosen = (grad if want else None for grad, want in zip(grads, wanted, strict=True))
        return None, *chosen, None, None, None, None, None


def _engine(backend: str) -> ModuleType:
    if backend == "triton":
        from gkdkernels.gat import triton as gat_triton

        return gat_triton
    if backend == "numba":
        from gkdkernels.gat import numba as gat_numba

        return gat_numba
    return gat_cpu


# Eager call, or one custom op under `torch.compile`.


def _forward(
    graph: CSRGraph,
    h: Tensor,
    el: Tensor,
    er: Tensor,
    slope: float,
    dropout: float,
    key: int,
    needs_er_grad: bool,
    backend: str,
) -> list[Tensor]:
    """The output, and tensors for backward."""
    made: list[Tensor]
    if torch.compiler.is_compiling():
        made = _FORWARD(graph.parts(), graph.num_src, h, el, er, slope, dropout, key, needs_er_grad, backend)
    else:
        made = _engine(backend).forward(graph, h, el, er, slope, dropout, key, needs_er_grad=needs_er_grad)
    return made


def _backward(
    graph: CSRGraph,
    saved: list[Tensor],
    g: Tensor,
    slope: float,
    dropout: float,
    key: int,
    wanted: Sequence[bool],
    backend: str,
) -> list[Tensor]:
    """Gradients of h, el and er; undefined if not requested."""
    grads: list[Tensor]
    if torch.compiler.is_compiling():
        parts = graph.parts(transposed=True)
        grads = _BACKWARD(parts, graph.num_src, saved, g, slope, dropout, key, list(wanted), backend)
    else:
        needs_h_grad, needs_el_grad, needs_er_grad = wanted
        engine = _engine(backend)
        grads = engine.backward(
            graph,
            saved,
            g,
            slope,
            dropout,
            key,
            needs_h_grad=needs_h_grad,
            needs_el_grad=needs_el_grad,
            needs_er_grad=needs_er_grad,
        )
    return grads


def _run_forward(parts: list[Tensor], num_src: int, h: Tensor, *rest: Any) -> list[Tensor]:
    *arguments, needs_er_grad, backend = rest
    made = _engine(backend).forward(CSRGraph.from_parts(parts, num_src), h, *arguments, needs_er_grad=needs_er_grad)
    return _separate(made, (h, *arguments[:2]))


def _run_backward(
    parts: list[Tensor],
    num_src: int,
    saved: list[Tensor],
    g: Tensor,
    slope: float,
    dropout: float,
    key: int,
    wanted: list[bool],
    backend: str,
) -> list[Tensor]:
    graph, (needs_h_grad, needs_el_grad, needs_er_grad) = CSRGraph.from_parts(parts, num_src), wanted
    engine = _engine(backend)
    return _separate(
        engine.backward(
            graph,
            saved,
            g,
            slope,
            dropout,
            key,
            needs_h_grad=needs_h_grad,
            needs_el_grad=needs_el_grad,
            needs_er_grad=needs_er_grad,
        ),
        (*saved, g),
    )


def _separate(tensors: list[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous tensors that share no memory, with `inputs` neither: what a registered operator may return."""
    seen = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    out = []
    for tensor in tensors:
        tensor = tensor.contiguous()
        address = tensor.untyped_storage().data_ptr()
        out.append(tensor.clone() if address in seen else tensor)
        seen.add(address)
    return out


def _fake_forward(
    parts: list[Tensor],
    num_src: int,
    h: Tensor,
    el: Tensor,
    er: Tensor,
    slope: float,
    dropout: float,
    key: int,
    needs_er_grad: bool,
    backend: str,
) -> list[Tensor]:
    return [
        h.new_empty(shape, dtype=dtype)
        for shape, dtype in _engine(backend).output_shapes(
            h, parts[0].numel() - 1, parts[1].numel(), needs_er_grad=needs_er_grad, dropout=dropout
        )
    ]


def _fake_backward(parts: list[Tensor], num_src: int, saved: list[Tensor], g: Tensor, *rest: Any) -> list[Tensor]:
    (needs_h_grad, needs_el_grad, needs_er_grad), num_dst, (_, heads, width) = rest[-2], g.size(0), g.shape
    return [
        g.new_empty(num_src, heads, width) if needs_h_grad or needs_el_grad else g.new_empty(0),
        g.new_empty(num_src if needs_el_grad else 0, heads),
        g.new_empty(num_dst if needs_er_grad else 0, heads),
    ]


_FORWARD = register(
    "gat_forward(Tensor[] graph, int num_src, Tensor h, Tensor el, Tensor er, float slope, float dropout, int key, "
    "bool needs_er_grad, str backend) -> Tensor[]",
    _run_forward,
    fake=_fake_forward,
)
_BACKWARD = register(
    "gat_backward(Tensor[] graph, int num_src, Tensor[] saved, Tensor g, float slope, float dropout, int key, "
    "bool[] wanted, str backend) -> Tensor[]",
    _run_backward,
    fake=_fake_backward,
)


def _check(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, dropout: float, key: int | None) -> None:
    check_graph(graph)
    if h.dim() != 3 or h.size(0) != graph.num_src:
        raise ValueError(f"h: expected shape [{graph.num_src}, H, F], got {tuple(h.shape)}")
    for name, tensor, rows in (("el", el, graph.num_src), ("er", er, graph.num_dst)):
        if tensor.shape != (rows, h.size(1)):
            raise ValueError(f"{name}: expected shape [{rows}, {h.size(1)}], got {tuple(tensor.shape)}")
        if tensor.dtype != h.dtype or tensor.device != h.device:
            raise ValueError(f"{name}: expected {h.dtype} on {h.device} like h, got {tensor.dtype} on {tensor.device}")
    if not h.is_floating_point():
        raise ValueError(f"h: expected a float dtype, got {h.dtype}")
    if h.device != graph.device:
        raise ValueError(f"h: expected the graph's device {graph.device}, got {h.device}")
    if not 0.0 <= slope <= 1.0:
        raise ValueError(f"negative_slope: expected a value in [0, 1], got {slope}")
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
    if dropout > 0 and key is None:
        raise ValueError("key: expected a seed when dropout > 0, got None")
