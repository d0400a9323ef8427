"""The plain mixture: exactly k experts, the released router, cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.small_graph import CLASSES, WIDTH, Scene

from gkdbench.nn.mixture import MixtureModel
from gkdbench.nn.model import parameter_count
from gkdbench.nn.moe import MoEConfig
from gkdbench.nn.random import Randomness


def make(**fields: Any) -> MixtureModel:
    model = MoEConfig(**{"hidden": 8, "experts": 5, "k": 2, **fields}).build(WIDTH, CLASSES, Randomness(0))
    assert isinstance(model, MixtureModel)
    return model


@pytest.mark.parametrize("router", ["linear", "cosine"])
def test_exactly_k_experts_with_weights_that_sum_to_1_and_learn(router: str, scene: Scene) -> None:
    model = make(router=router).eval()
    trace = model.node_trace(scene.dense, None)
    for routing in trace.routings:
        assert routing.index.shape[1] == 2
        torch.testing.assert_close(routing.alpha.sum(1), torch.ones(len(routing.alpha)))
    trace.logits.square().sum().backward()
    moved = [p.grad for n, p in model.named_parameters() if "router" in n or "direction" in n]
    assert moved
    assert all(grad is not None and grad.any() for grad in moved)


@pytest.mark.parametrize("router", ["linear", "cosine"])
def test_routing_begins_without_a_jump(router: str, scene: Scene) -> None:
    model = make(router=router, layers=3).eval()
    model.routed = False
    before = model(scene.dense)
    model.begin_routing(scene.dense)
    assert float((model(scene.dense) - before).detach().abs().max()) <= 1e-5


def test_the_release_uses_one_more_expert_and_weights_below_1(scene: Scene) -> None:
    model = make(router="released").eval()
    routing = model.node_trace(scene.dense, None).routings[0]
    assert routing.index.shape[1] == 3
    assert (routing.alpha.sum(1) < 1).all()
    all_of_them = make(router="released", k=5).eval().node_trace(scene.dense, None).routings[0]
    assert all_of_them.index.shape[1] == 5


def test_the_release_pretrains_by_slices_of_a_batch(scene: Scene) -> None:
    """In evaluation too: a row's answer depends on its place."""
    model = make(router="released").eval()
    model.routed = False
    layer = model.expert_layers[0]
    x = torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(0))
    y = layer.alone(x)
    for row in range(10):
        torch.testing.assert_close(y[row], x[row] @ layer.weight[row // 2] + layer.bias[row // 2])
    assert not torch.allclose(model(x.flip(0)).flip(0), model(x))
    weights = [layer.weight.clone() for layer in model.expert_layers]
    model.begin_routing(x)
    assert all(torch.equal(a, layer.weight) for a, layer in zip(weights, model.expert_layers, strict=True))


def test_the_release_adds_noise_in_training_only(scene: Scene) -> None:
    model = make(router="released", dropout=0.0)
    outputs = [model(scene.dense) for model.randomness.step in (1, 2)]
    assert not torch.equal(*outputs)
    model.eval()
    assert torch.equal(*[model(scene.dense) for model.randomness.step in (1, 2)])


@pytest.mark.parametrize(("router", "used", "routing"), [("linear", 2, 5 * (50 + 80)), ("released", 3, None)])
def test_cost(router: Any, used: int, routing: int | None) -> None:
    config = MoEConfig(hidden=8, experts=5, k=2, router=router)
    nnz, nodes = 50, 10
    if routing is None:
        routing = (nnz * 8 + nodes * 8 * 8) + 2 * nodes * 8 * 5
    assert config.macs(20, 3, nodes, 0, nnz) == routing + used * (nnz * 8 + nodes * 8 * 3)


def test_parameters_are_experts_temperatures_and_routers() -> None:
    experts = 5 * ((WIDTH + 1) * 8 + (8 + 1) * CLASSES) + 2
    assert parameter_count(make(router="linear")) == experts + 5 * (WIDTH + 8)
    assert parameter_count(make(router="cosine")) == experts + (WIDTH + 1) * 8 + (8 + 1) * 8 + 2 * (5 * 8 + 1)
