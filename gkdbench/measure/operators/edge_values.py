"""`edge_dot` and `edge_softmax`: the fp64 reference, and what else computes them."""

from __future__ import annotations

import torch
from gkdkernels import CSRGraph, edge_dot, edge_softmax
from gkdkernels.core.cost import Cost, edge_dot_cost, edge_softmax_cost
from torch import Tensor

from gkdbench.measure.operators.problem import (
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

_BLOCK_ELEMENTS = 1 << 25  # [edges of a block, D] of the oracle


def problem(case: Case, graph: CSRGraph) -> OperatorProblem:
    """Values per edge. Sizes: width of `edge_dot`, heads of `edge_softmax`."""
    return _dot(case, graph) if case.operator == "edge_dot" else _softmax(case, graph)


def _dot(case: Case, graph: CSRGraph) -> OperatorProblem:
    width, device, dtype = case.sizes["width"], graph.device, case.torch_dtype
    sizes = {"y": graph.num_dst, "x": graph.num_src}
    inputs = {
        name: normal(rows, width, seed=seed, dtype=dtype, device=device)
        for seed, (name, rows) in enumerate(sizes.items(), start=21)
    }
    upstream = normal(graph.num_edges, seed=23, dtype=dtype, device=device)
    row, col = graph.row.long(), graph.index.long()

    def dot(t: Tensors, edges: slice) -> Tensor:
        return (t["y"].index_select(0, row[edges]) * t["x"].index_select(0, col[edges])).sum(-1)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        blocks = [(edges, rows) for rows, edges in edge_blocks(graph, max(1, _BLOCK_ELEMENTS // width))]
        return by_blocks(inputs, g, blocks, lambda t, edges, rows: dot(t, edges))

    def plain(t: Tensors) -> Tensor:
        return dot(t, slice(None))

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: edge_dot(graph, t["y"], t["x"], backend=backend)

    def cost(*, reuse: bool) -> Cost:
        forth, back = (
            edge_dot_cost(
                graph.num_dst,
                graph.num_src,
                graph.num_edges,
                width,
                backward=backward,
                feature_bytes=dtype.itemsize,
                index_bytes=graph.index.element_size(),
                reuse=reuse,
            )
            for backward in (False, True)
        )
        return forth + back if case.direction == "fwd+bwd" else forth

    others = [competitor("torch index_select", lambda: plain), compiled("torch.compile(index_select)", plain)]
    candidates = [*ours("edge_dot", device, call), *others]
    return OperatorProblem(inputs, upstream, oracle, candidates, cost(reuse=False), cost(reuse=True))


def _softmax(case: Case, graph: CSRGraph) -> OperatorProblem:
    heads, device, dtype = case.sizes["heads"], graph.device, case.torch_dtype
    score = normal(graph.num_edges, heads, seed=24, dtype=dtype, device=device)
    upstream = normal(graph.num_edges, heads, seed=25, dtype=dtype, device=device)
    row = graph.row.long()

    def softmax(score: Tensor, at: Tensor, rows: int) -> Tensor:
        nothing, where = score.new_zeros(rows, heads), at[:, None].expand(score.shape)
        peak = (nothing - torch.inf).scatter_reduce(0, where, score.detach(), "amax")
        exponent = (score - peak.index_select(0, at)).exp()
        return exponent / nothing.index_add(0, at, exponent).index_select(0, at)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        blocks = [(edges, rows) for rows, edges in edge_blocks(graph, _BLOCK_ELEMENTS)]
        return by_blocks(
            inputs,
            g,
            blocks,
            lambda t, edges, rows: softmax(t["score"][edges], row[edges] - rows.start, rows.stop - rows.start),
        )

    def plain(t: Tensors) -> Tensor:
        return softmax(t["score"], row, graph.num_dst)

    def geometric() -> OperatorCall:
        from torch_geometric import utils

        return lambda t: utils.softmax(t["score"], ptr=graph.indptr)

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: edge_softmax(graph, t["score"], backend=backend)

    forth, back = (
        edge_softmax_cost(graph.num_edges, graph.num_dst, heads, backward=backward, feature_bytes=dtype.itemsize)
        for backward in (False, True)
    )
    total = forth + back if case.direction == "fwd+bwd" else forth
    others = [
        competitor("torch scatter_reduce", lambda: plain),
        compiled("torch.compile(scatter_reduce)", plain),
        competitor("torch_geometric", geometric, "torch_geometric"),
    ]
    candidates = [*ours("edge_softmax", device, call), *others]
    return OperatorProblem({"score": score}, upstream, oracle, candidates, total, total)
