"""`gat_aggregate`: the fp64 reference, and what else computes attention-weighted neighbour sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, gat_aggregate
from gkdkernels.core.cost import Cost, gat_cost
from torch import Tensor

from gkdbench.measure.operators.compiled import library
from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    by_blocks,
    competitor,
    compiled,
    edge_blocks,
    normal,
    ours,
)

SLOPE = 0.2
_BLOCK_ELEMENTS = 1 << 25  # [edges of a block, H F] of the oracle


def problem(case: Case, graph: CSRGraph) -> OperatorProblem:
    """Softmax of ``leaky_relu(el_j + er_i)`` times h_j, no dropout. Sizes: heads, width (of one head)."""
    heads, width, device, dtype = case.sizes["heads"], case.sizes["width"], graph.device, case.torch_dtype
    shapes = {"h": (graph.num_src, heads, width), "el": (graph.num_src, heads), "er": (graph.num_dst, heads)}
    inputs = {n: normal(*s, seed=i, dtype=dtype, device=device) for i, (n, s) in enumerate(shapes.items())}
    upstream = normal(graph.num_dst, heads, width, seed=9, dtype=dtype, device=device)

    def oracle(leaves: Tensors, g: Tensor) -> dict[str, Tensor]:
        blocks = edge_blocks(graph, max(1, _BLOCK_ELEMENTS // (heads * width)))
        return by_blocks(leaves, g, blocks, lambda t, rows, edges: _rows(graph, t, rows, edges))

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: gat_aggregate(graph, t["h"], t["el"], t["er"], negative_slope=SLOPE, backend=backend)

    candidates = [*ours("gat_aggregate", device, call), *_peers(graph, dtype)]
    return OperatorProblem(
        inputs, upstream, oracle, candidates, _cost(case, graph, reuse=False), _cost(case, graph, reuse=True)
    )


def _cost(case: Case, graph: CSRGraph, *, reuse: bool) -> Cost:
    def one(backward: bool) -> Cost:
        return gat_cost(
            graph.num_dst,
            graph.num_src,
            graph.num_edges,
            case.sizes["heads"],
            case.sizes["width"],
            backward=backward,
            feature_bytes=case.torch_dtype.itemsize,
            index_bytes=graph.index.element_size(),
            reuse=reuse,
        )

    return one(False) + one(True) if case.direction == "fwd+bwd" else one(False)


def _rows(graph: CSRGraph, t: Tensors, rows: slice, edges: slice) -> Tensor:
    row, col = (graph.row[edges] - rows.start).long(), graph.index[edges].long()
    score = F.leaky_relu(t["el"].index_select(0, col) + t["er"][rows].index_select(0, row), SLOPE)  # [e, H]
    shape = (rows.stop - rows.start, score.size(1))
    peak = score.new_full(shape, -torch.inf).scatter_reduce(0, row[:, None].expand(score.shape), score, "amax").detach()
    weight = (score - peak.index_select(0, row)).exp()
    p = weight / weight.new_zeros(shape).index_add(0, row, weight).index_select(0, row)
    messages = p[..., None] * t["h"].index_select(0, col)
    return messages.new_zeros(*shape, messages.size(2)).index_add(0, row, messages)


def _peers(graph: CSRGraph, dtype: torch.dtype) -> list[Candidate]:
    row, col = graph.row.long(), graph.index.long()
    nodes = graph.num_dst

    def attention(el: Tensor, er: Tensor) -> Tensor:
        score = F.leaky_relu(el + er, SLOPE)
        where = row[:, None].expand(score.shape)
        peak = score.new_full((nodes, score.size(1)), -torch.inf).scatter_reduce(0, where, score.detach(), "amax")
        weight = (score - peak.index_select(0, row)).exp()
        return weight / weight.new_zeros(peak.shape).index_add(0, row, weight).index_select(0, row)

    def index_select(t: Tensors) -> Tensor:
        p = attention(t["el"].index_select(0, col), t["er"].index_select(0, row))
        messages = p[..., None] * t["h"].index_select(0, col)
        return messages.new_zeros(nodes, *messages.shape[1:]).index_add(0, row, messages)

    def fancy_index(t: Tensors) -> Tensor:
        messages = attention(t["el"][col], t["er"][row])[..., None] * t["h"][col]
        return messages.new_zeros(nodes, *messages.shape[1:]).index_add(0, row, messages)

    return [
        competitor("torch index_select + index_add", lambda: index_select),
        competitor("torch h[index] + index_add", lambda: fancy_index),
        compiled("torch.compile(index_select)", index_select),
        competitor("torch_geometric softmax + scatter", lambda: _geometric(row, col, nodes), "torch_geometric"),
        competitor("torch_scatter", lambda: _torch_scatter(graph), "torch_scatter"),
        Candidate("C++", lambda: _fused(graph, dtype), yardstick=True),
    ]


def _geometric(row: Tensor, col: Tensor, nodes: int) -> OperatorCall:
    """What `GATConv` does after its linear maps."""
    from torch_geometric.utils import scatter, softmax

    def forward(t: Tensors) -> Tensor:
        score = F.leaky_relu(t["el"].index_select(0, col) + t["er"].index_select(0, row), SLOPE)
        p = softmax(score, row, num_nodes=nodes)
        found: Tensor = scatter(p[..., None] * t["h"].index_select(0, col), row, 0, dim_size=nodes, reduce="sum")
        return found

    return forward


def _torch_scatter(graph: CSRGraph) -> OperatorCall:
    from torch_scatter import gather_csr, segment_csr, softmax_csr

    indptr, col = graph.indptr.long(), graph.index.long()

    def forward(t: Tensors) -> Tensor:
        score = F.leaky_relu(t["el"].index_select(0, col) + gather_csr(t["er"], indptr), SLOPE)
        found: Tensor = segment_csr(softmax_csr(score, indptr)[..., None] * t["h"].index_select(0, col), indptr)
        return found

    return forward


def _fused(graph: CSRGraph, dtype: torch.dtype) -> OperatorCall:
    if graph.device.type != "cpu" or dtype != torch.float32:
        raise CandidateUnavailable("written for fp32 on the CPU")
    code, transposed = library(), graph.transposed.graph
    forth, back = (graph.indptr.int(), graph.index.int()), (transposed.indptr.int(), transposed.index.int())
    return lambda t: _Fused.apply(code, forth, back, t["h"], t["el"], t["er"])  # type: ignore[no-untyped-call]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Any, forth: Any, back: Any, h: Tensor, el: Tensor, er: Tensor) -> Tensor:
        nodes, heads, width = er.size(0), h.size(1), h.size(2)
        o, o_n = (torch.empty(nodes, heads, width) for _ in range(2))
        lse, q_n = torch.empty_like(er), torch.empty_like(er)
        code.gat(*forth, h, el, er, SLOPE, o, o_n, lse, q_n, nodes, heads, width)
        ctx.code, ctx.back = code, back
        ctx.save_for_backward(h, el, er, o, o_n, lse, q_n)
        return o

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        h, el, er, o, o_n, lse, q_n = ctx.saved_tensors
        g, (heads, width) = g.contiguous(), h.shape[1:]
        delta, der, dh, del_ = (torch.empty_like(like) for like in (er, er, h, el))
        ctx.code.gat_nodes(g, o, o_n, q_n, delta, der, er.size(0), heads, width)
        ctx.code.gat_backward(*ctx.back, h, el, er, lse, delta, g, SLOPE, dh, del_, h.size(0), heads, width)
        return None, None, None, dh, del_, der
