"""Routing by memory and one linear layer per expert: the fp64 reference, and what else computes the layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gkdkernels.core.cost import experts_cost
from gkdkernels.experts.op import expert_linear
from gkdkernels.experts.routing import route_by_memory
from torch import Tensor

from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    competitor,
    compiled,
    gradient_of,
    normal,
    ours,
)

_MARGIN = 1e-4  # between the last expert taken and the first left out: no rounding may change the choice
_BLOCK_ROWS = 1 << 12


def problem(case: Case, device: torch.device) -> OperatorProblem:
    """RbM's layer, weights of experts detached, no gate, no dropout. Sizes: nodes, width, experts, chosen."""
    nodes, width, experts, chosen = (case.sizes[name] for name in ("nodes", "width", "experts", "chosen"))
    dtype = case.torch_dtype
    memory = normal(experts, width, seed=7, dtype=dtype, device=device)
    inputs = {
        "x": clearly_routed(normal(nodes, width, seed=8, dtype=dtype, device=device), memory, chosen),
        "weight": normal(experts, width, width, seed=9, dtype=dtype, device=device, scale=width**-0.5),
        "bias": normal(experts, width, seed=10, dtype=dtype, device=device),
    }
    upstream = normal(nodes, width, seed=11, dtype=dtype, device=device)

    def oracle(leaves: Tensors, g: Tensor) -> dict[str, Tensor]:
        found = {name: tensor.requires_grad_() for name, tensor in leaves.items()}
        value = torch.zeros_like(g)
        for first in range(0, nodes, _BLOCK_ROWS):
            rows = slice(first, first + _BLOCK_ROWS)
            x = found["x"][rows]
            index, alpha = routes_by_definition(x.detach(), memory.double(), chosen)
            share = torch.zeros(x.size(0), experts, dtype=x.dtype, device=device).scatter(1, index, alpha)
            every = [share[:, e, None] * (x @ found["weight"][e] + found["bias"][e]) for e in range(experts)]
            part = torch.stack(every).sum(0)
            part.backward(g[rows])  # type: ignore[no-untyped-call]
            value[rows] = part.detach()
        return {"value": value} | {name: gradient_of(leaf) for name, leaf in found.items()}

    def call(backend: str) -> OperatorCall:
        def forward(t: Tensors) -> Tensor:
            with torch.no_grad():
                index, alpha, _ = route_by_memory(t["x"], memory, chosen, backend=backend)
            return expert_linear(t["x"], t["weight"], t["bias"], index, alpha, backend=backend)

        return forward

    forth = experts_cost(nodes, width, width, experts, chosen, feature_bytes=dtype.itemsize)
    back = experts_cost(nodes, width, width, experts, chosen, backward=True, feature_bytes=dtype.itemsize)
    total = forth + back if case.direction == "fwd+bwd" else forth
    candidates = [*ours("expert_linear", device, call), *_peers(memory, chosen, dtype)]
    return OperatorProblem(inputs, upstream, oracle, candidates, total, total)


def clearly_routed(x: Tensor, memory: Tensor, chosen: int) -> Tensor:
    """`x` with those rows drawn again whose choice of experts is close."""
    for attempt in range(100):
        cosine = F.normalize(x.double(), dim=1) @ F.normalize(memory.double(), dim=1).t()
        best = cosine.topk(min(chosen + 1, memory.size(0)), dim=1).values
        close = (best[:, :-1] - best[:, 1:]).amin(1) < _MARGIN
        count = int(close.sum())
        if not count:
            return x
        x[close] = normal(count, x.size(1), seed=1000 + attempt, dtype=x.dtype, device=x.device)
    raise RuntimeError("no inputs with clear routes were found")


def routes_by_definition(x: Tensor, memory: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """index, alpha [N, k] by the definition."""
    top = (F.normalize(x, dim=1) @ F.normalize(memory, dim=1).t()).topk(chosen, dim=1)
    return top.indices, top.values.softmax(1)


def _peers(memory: Tensor, chosen: int, dtype: torch.dtype) -> list[Candidate]:
    experts = memory.size(0)

    def routed(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return routes_by_definition(x.float(), memory.float(), chosen)

    def released(t: Tensors) -> Tensor:
        """The released layer's structure: sort, gather all pairs, one product and one out-of-place add per expert."""
        x, (index, alpha) = t["x"], routed(t["x"])
        flat, order = index.flatten().sort(stable=True)
        row = order // chosen
        inputs = torch.split(x[row], torch.bincount(flat, minlength=experts).tolist())
        weights = alpha.flatten()[order].to(dtype)
        out, first = x.new_zeros(x.size(0), t["weight"].size(2)), 0
        for e in range(experts):
            last = first + inputs[e].size(0)
            y = F.linear(inputs[e], t["weight"][e].t(), t["bias"][e])
            out = out.index_add(0, row[first:last], y * weights[first:last, None])
            first = last
        return out

    def dense(t: Tensors) -> Tensor:
        """All experts on all rows."""
        x, (index, alpha) = t["x"], routed(t["x"])
        share = x.new_zeros(x.size(0), experts).scatter(1, index, alpha.to(dtype))
        every = torch.einsum("nd,edh->neh", x, t["weight"]) + t["bias"]
        return torch.einsum("neh,ne->nh", every, share)

    def grouped() -> OperatorCall:
        product = getattr(F, "grouped_mm", None)
        if product is None:
            raise CandidateUnavailable("this torch has no torch.nn.functional.grouped_mm")

        def forward(t: Tensors) -> Tensor:
            x, (index, alpha) = t["x"], routed(t["x"])
            flat, order = index.flatten().sort(stable=True)
            ends = torch.bincount(flat, minlength=experts).cumsum(0).int()
            rows = x.index_select(0, order // chosen)
            y = product(rows, t["weight"], offs=ends) + t["bias"].index_select(0, flat)
            y = y * alpha.flatten()[order].to(dtype)[:, None]
            return x.new_zeros(x.size(0), y.size(1)).index_add(0, order // chosen, y)

        return forward

    return [
        competitor("released structure, re-written plainly", lambda: released),
        competitor("torch sort + grouped_mm", grouped),
        competitor("torch dense", lambda: dense),
        compiled("torch.compile(dense)", dense),
    ]
