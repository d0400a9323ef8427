"""The parts of an RbM layer one by one: routing, the experts of given routes, and the folded layer of inference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gkdkernels import expert_linear, fold_experts, rbm_layer, route_by_memory
from gkdkernels.core.cost import expert_linear_cost, experts_cost, route_by_memory_cost
from torch import Tensor

from gkdbench.measure.operators.experts import clearly_routed, routes_by_definition
from gkdbench.measure.operators.problem import (
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


def problem(case: Case, device: torch.device) -> OperatorProblem:
    """The part that `case.operator` names. Sizes: nodes, width, experts, chosen."""
    return _PARTS[case.operator](case, device)


def _routing(case: Case, device: torch.device) -> OperatorProblem:
    """alpha [N, k], differentiable in the rows and in the memory."""
    nodes, width, experts, chosen = _sizes(case)
    dtype = case.torch_dtype
    memory = normal(experts, width, seed=7, dtype=dtype, device=device)
    x = clearly_routed(normal(nodes, width, seed=8, dtype=dtype, device=device), memory, chosen)
    wide = torch.promote_types(dtype, torch.float32)
    upstream = normal(nodes, chosen, seed=11, dtype=wide, device=device)

    def plain(t: Tensors) -> Tensor:
        return routes_by_definition(t["x"].to(wide), t["memory"].to(wide), chosen)[1]

    def exact(t: Tensors) -> Tensor:
        return routes_by_definition(t["x"], t["memory"], chosen)[1]

    def call(backend: str) -> OperatorCall:
        return lambda t: route_by_memory(t["x"], t["memory"], chosen, backend=backend)[1]

    forth, back = (
        route_by_memory_cost(nodes, width, experts, chosen, backward=backward, feature_bytes=dtype.itemsize)
        for backward in (False, True)
    )
    total = forth + back if case.direction == "fwd+bwd" else forth
    others = [competitor("torch topk", lambda: plain), compiled("torch.compile(topk)", plain)]
    candidates = [*ours("route_by_memory", device, call), *others]
    return OperatorProblem({"x": x, "memory": memory}, upstream, _oracle(exact), candidates, total, total)


def _linear(case: Case, device: torch.device) -> OperatorProblem:
    """The layer with routes and weights given."""
    nodes, width, experts, chosen = _sizes(case)
    dtype = case.torch_dtype
    drawn = torch.rand(nodes, experts, generator=torch.Generator().manual_seed(18))
    index = drawn.topk(chosen, dim=1).indices.to(device)
    alpha = torch.softmax(normal(nodes, chosen, seed=19, dtype=torch.float32, device=device), dim=1)
    inputs = {
        "x": normal(nodes, width, seed=8, dtype=dtype, device=device),
        "weight": normal(experts, width, width, seed=9, dtype=dtype, device=device, scale=width**-0.5),
        "bias": normal(experts, width, seed=10, dtype=dtype, device=device),
    }
    upstream = normal(nodes, width, seed=11, dtype=dtype, device=device)

    def dense(t: Tensors) -> Tensor:
        return _dense(t["x"], t["weight"], t["bias"], index, alpha)

    def call(backend: str) -> OperatorCall:
        return lambda t: expert_linear(t["x"], t["weight"], t["bias"], index, alpha, backend=backend)

    forth, back = (
        expert_linear_cost(nodes, width, width, experts, chosen, backward=backward, feature_bytes=dtype.itemsize)
        for backward in (False, True)
    )
    total = forth + back if case.direction == "fwd+bwd" else forth
    others = [competitor("torch dense", lambda: dense), compiled("torch.compile(dense)", dense)]
    candidates = [*ours("expert_linear", device, call), *others]
    return OperatorProblem(inputs, upstream, _oracle(dense), candidates, total, total)


def _folded(case: Case, device: torch.device) -> OperatorProblem:
    """Inference: forward only, no gradient."""
    nodes, width, experts, chosen = _sizes(case)
    dtype = case.torch_dtype
    memory = normal(experts, width, seed=7, dtype=dtype, device=device)
    weight = normal(experts, width, width, seed=9, dtype=dtype, device=device, scale=width**-0.5)
    bias = normal(experts, width, seed=10, dtype=dtype, device=device)
    x = clearly_routed(normal(nodes, width, seed=8, dtype=dtype, device=device), memory, chosen)
    folded = fold_experts(weight, bias, memory)

    def dense(x: Tensor, wide: torch.dtype) -> Tensor:
        index, alpha = routes_by_definition(x.to(wide), memory.to(wide), chosen)
        return _dense(x, weight.to(x.dtype), bias.to(x.dtype), index, alpha).relu()

    def call(backend: str) -> OperatorCall:
        return lambda t: rbm_layer(t["x"], folded, chosen, backend=backend)

    def plain(t: Tensors) -> Tensor:
        return dense(t["x"], torch.promote_types(dtype, torch.float32))

    total = experts_cost(nodes, width, width, experts, chosen, feature_bytes=dtype.itemsize)
    return OperatorProblem(
        {"x": x},
        normal(nodes, width, seed=11, dtype=dtype, device=device),
        _oracle(lambda t: dense(t["x"], torch.float64)),
        [
            *ours("rbm_layer", device, call),
            competitor("torch dense", lambda: plain),
            compiled("torch.compile(dense)", plain),
        ],
        total,
        total,
    )


_PARTS = {"route_by_memory": _routing, "expert_linear": _linear, "rbm_layer": _folded}


def _sizes(case: Case) -> tuple[int, int, int, int]:
    nodes, width, experts, chosen = (case.sizes[name] for name in ("nodes", "width", "experts", "chosen"))
    return nodes, width, experts, chosen


def _dense(x: Tensor, weight: Tensor, bias: Tensor, index: Tensor, alpha: Tensor) -> Tensor:
    """[N, H]: all experts on all rows, weighted; one expert after the other, so that [N, E, H] is never held."""
    share = x.new_zeros(x.size(0), weight.size(0)).scatter(1, index, alpha.to(x.dtype))
    out = x.new_zeros(x.size(0), weight.size(2))
    for e in range(weight.size(0)):
        out = out + share[:, e, None] * (x @ weight[e] + bias[e])
    return out


def _oracle(formula: OperatorCall) -> Callable[[Tensors, Tensor], dict[str, Tensor]]:
    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
        value = formula(leaves)
        value.backward(g)  # type: ignore[no-untyped-call]
        return {"value": value.detach()} | {name: gradient_of(leaf) for name, leaf in leaves.items()}

    return oracle
