"""Readouts over contiguous segments: the fp64 reference, and what else computes them."""

from __future__ import annotations

import torch
from gkdkernels import segment_max, segment_mean, segment_softmax, segment_sum
from gkdkernels.core.cost import Cost, segment_cost
from torch import Tensor

from gkdbench.measure.operators.problem import (
    Candidate,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    competitor,
    compiled,
    gradient_of,
    normal,
)

OURS = {"sum": segment_sum, "mean": segment_mean, "max": segment_max, "softmax": segment_softmax}


def problem(case: Case, device: torch.device) -> OperatorProblem:
    """Segments of random lengths, empty ones among them. Sizes: graphs, nodes, width."""
    graphs, nodes, width = (case.sizes[name] for name in ("graphs", "nodes", "width"))
    kind, dtype = case.option, case.torch_dtype
    ends = torch.randint(0, nodes + 1, (graphs - 1,), generator=torch.Generator().manual_seed(12)).sort().values
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), ends, torch.tensor([nodes])]).to(device)
    x = normal(nodes, width, seed=13, dtype=dtype, device=device)
    upstream = normal(nodes if kind == "softmax" else graphs, width, seed=14, dtype=dtype, device=device)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        leaf = inputs["x"].requires_grad_()
        value = torch.zeros_like(g)
        for graph, (first, last) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
            if first == last:
                continue
            rows = leaf[first:last]
            out = slice(first, last) if kind == "softmax" else slice(graph, graph + 1)
            part = rows.softmax(0) if kind == "softmax" else _reduced(rows, kind)[None]
            part.backward(g[out])  # type: ignore[no-untyped-call]
            value[out] = part.detach()
        return {"value": value, "x": gradient_of(leaf)}

    def cost(backward: bool) -> Cost:
        softmax = kind == "softmax"
        return segment_cost(nodes, graphs, width, softmax=softmax, backward=backward, feature_bytes=dtype.itemsize)

    total = cost(False) + cost(True) if case.direction == "fwd+bwd" else cost(False)
    mine = Candidate("gkdkernels", lambda: lambda t: OURS[kind](t["x"], ptr), ours=True)
    return OperatorProblem({"x": x}, upstream, oracle, [mine, *_peers(ptr, kind)], total, total)


def _reduced(rows: Tensor, kind: str) -> Tensor:
    """[D] of ``rows: [n, D]``, ties to the lowest row."""
    if kind == "max":
        return rows.gather(0, rows.detach().argmax(0, keepdim=True)).squeeze(0)
    return rows.mean(0) if kind == "mean" else rows.sum(0)


def _peers(ptr: Tensor, kind: str) -> list[Candidate]:
    graphs, length = ptr.numel() - 1, ptr.diff()
    segment = torch.repeat_interleave(torch.arange(graphs, device=ptr.device), length)

    def scatter(t: Tensors) -> Tensor:
        x = t["x"]
        where, zero = segment[:, None].expand(x.shape), x.new_zeros(graphs, x.size(1))
        if kind != "softmax":
            name = {"sum": "sum", "mean": "mean", "max": "amax"}[kind]
            return zero.scatter_reduce(0, where, x, name, include_self=False)
        peak = zero.scatter_reduce(0, where, x.detach(), "amax", include_self=False)
        weight = (x - peak.index_select(0, segment)).exp()
        return weight / zero.index_add(0, segment, weight).index_select(0, segment)

    def segment_reduce(t: Tensors) -> Tensor:
        return torch.segment_reduce(t["x"], kind, lengths=length, initial=0 if kind != "max" else None)

    def geometric() -> OperatorCall:
        from torch_geometric import utils

        if kind == "softmax":
            return lambda t: utils.softmax(t["x"], ptr=ptr)
        return lambda t: utils.segment(t["x"], ptr, reduce=kind)

    stock = [] if kind == "softmax" else [competitor("torch.segment_reduce", lambda: segment_reduce)]
    return [
        competitor("torch scatter_reduce", lambda: scatter),
        *stock,
        compiled("torch.compile(scatter_reduce)", scatter),
        competitor("torch_geometric", geometric, "torch_geometric"),
    ]
