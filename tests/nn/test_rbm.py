"""RbM's layer and model: the routed sum, the memory, the switch, the controls, folded inference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gkdkernels import SparseFeatures
from support.small_graph import CLASSES, NODES, WIDTH, Scene
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.clustering import direction_kmeans
from gkdbench.nn.model import parameter_count
from gkdbench.nn.random import Randomness
from gkdbench.nn.rbm import RbMConfig, RbMModel
from gkdbench.nn.stats import update_stats


def make(seed: int = 0, **fields: Any) -> RbMModel:
    model = RbMConfig(**{"hidden": 8, **fields}).build(WIDTH, CLASSES, Randomness(seed))
    assert isinstance(model, RbMModel)
    return model


def memories(model: RbMModel) -> list[Tensor]:
    return [layer.memory.clone() for layer in model.memories]


def by_hand(model: RbMModel, x: Tensor) -> Tensor:
    """Eval-mode logits [N, C], row by row and expert by expert, in double precision."""
    x = x.double()
    for depth, layer in enumerate(model.memories):
        direction = F.normalize(layer.memory.double(), dim=1)
        rows = []
        for row in x:
            cosine = direction @ F.normalize(row, dim=0)
            chosen = cosine.topk(layer.k).indices
            alpha = cosine[chosen].softmax(0)
            gate = layer.gate.double().exp() if layer.gate is not None else torch.ones_like(direction)
            outputs = [(gate[e] * row) @ layer.weight[e].double() + layer.bias[e].double() for e in chosen]
            rows.append(layer.log_temperature.double().exp() * sum(a * y for a, y in zip(alpha, outputs, strict=True)))
        x = torch.stack(rows)
        if depth < len(model.norms):
            x = F.relu(model.norms[depth].double()(x))
    return x


@pytest.mark.parametrize("fields", [{}, {"gate": True, "gate_start": 1.3, "temperature": 2.0}, {"k": 4}, {"k": 1}])
def test_the_model_is_the_formula(fields: dict[str, Any]) -> None:
    x = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0))
    model = make(layers=3, **fields).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x).double(), by_hand(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("fields", [{}, {"gate": True, "gate_start": 1.1, "temperature": 2.0, "layers": 3, "k": 4}])
def test_folded_inference_is_the_model(norm: str, fields: dict[str, Any], scene: Scene) -> None:
    model = make(norm=norm, **fields).train()
    model.begin_routing(scene.dense)
    for step in range(5):
        model.randomness.step = step
        model(scene.dense).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * (parameter.grad if parameter.grad is not None else 0)
    model.eval()
    folded = model.folded()
    for x in (scene.dense, scene.sparse, scene.mixed):  # nodes without features among them
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)


def test_a_layer_norm_does_not_fold() -> None:
    with pytest.raises(UserError, match="folding: expected a BatchNorm or no norm, got LayerNorm"):
        make(norm="layer").folded()


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("k", [1, 3])
def test_routing_begins_without_a_jump(norm: str, k: int, scene: Scene) -> None:
    model = make(norm=norm, k=k, gate=True, layers=3).eval()
    model.routed = False
    before = model(scene.dense)
    model.begin_routing(scene.dense)
    assert model.routed
    assert float((model(scene.dense) - before).detach().abs().max()) <= 1e-5


@pytest.mark.parametrize(("gate", "factor"), [(False, 2.0), (True, 2.2)])
def test_the_released_start_jumps_by_a_factor_per_layer(gate: bool, factor: float, scene: Scene) -> None:
    model = make(temperature=2.0, gate=gate, gate_start=1.1, layers=2).eval()
    with torch.no_grad():
        for layer in model.memories:
            layer.bias.zero_()
    model.routed = False
    before = model(scene.dense)
    model.begin_routing(scene.dense)
    torch.testing.assert_close(model(scene.dense), factor**2 * before, rtol=1e-4, atol=1e-5)


def test_before_the_switch_only_expert_0_is_read(scene: Scene) -> None:
    model = make()
    model.routed = False
    trace = model.node_trace(scene.dense, None)
    assert trace.routings == ()
    trace.logits.sum().backward()
    for layer in model.memories:
        assert layer.weight.grad is not None
        assert layer.weight.grad[0].any()
        assert not layer.weight.grad[1:].any()
        assert layer.log_temperature.grad is None


def test_the_stage_is_part_of_the_state(scene: Scene) -> None:
    model, other = make(), make(seed=1)
    model.routed = False
    other.load_state_dict(model.state_dict())
    assert not other.routed
    assert torch.equal(model.eval()(scene.dense), other.eval()(scene.dense))


def test_memories_move_in_clean_training_forwards_only(scene: Scene) -> None:
    model = make(dropout=0.0)
    fresh = memories(model)
    model.train()(scene.dense)
    assert all(torch.equal(a, b) for a, b in zip(fresh, memories(model), strict=True))  # not initialised yet
    model.begin_routing(scene.dense)
    start = memories(model)
    model.eval()(scene.dense)
    with update_stats(model.train(), False):
        model(scene.dense)
    assert all(torch.equal(a, b) for a, b in zip(start, memories(model), strict=True))
    routing = model.node_trace(scene.dense, None).routings[0]
    weight = torch.zeros(NODES, 4).scatter(1, routing.index, routing.alpha.exp())
    pulled = (weight / weight.sum(0).clamp(min=1)).t() @ F.normalize(scene.dense, dim=1)
    torch.testing.assert_close(model.memories[0].memory, 0.9 * F.normalize(start[0], dim=1) + 0.1 * pulled)


@pytest.mark.parametrize("rule", ["frozen", "random", "random_each"])
def test_controls_never_move_their_memories(rule: str, scene: Scene) -> None:
    model = make(routing=rule)
    fresh = memories(model)
    model.train().begin_routing(scene.dense)
    start = memories(model)
    assert torch.equal(fresh[0], start[0]) == (rule != "frozen")
    trained = [model.node_trace(scene.dense, None).routings[0].index for model.randomness.step in (1, 2)]
    assert torch.equal(*trained) == (rule != "random_each")
    assert all(torch.equal(a, b) for a, b in zip(start, memories(model), strict=True))
    model.eval()
    first = model.node_trace(scene.dense, None).routings[0].index
    assert torch.equal(first[5:9], model.node_trace(scene.dense[5:9], None).routings[0].index)


def test_task_losses_reach_neither_router_nor_memory(scene: Scene) -> None:
    model = make()
    for memory in model.router_tensors():
        memory.requires_grad_()
    model.train()(scene.dense).square().sum().backward()
    assert all(memory.grad is None for memory in model.router_tensors())


def test_weights_have_no_gradient_through_the_output(scene: Scene) -> None:
    """With alpha detached a layer is linear in x: its gradient is that of fixed weights."""
    model = make(layers=1).eval()
    x = scene.dense.clone().requires_grad_()
    layer = model.memories[0]
    (got,) = torch.autograd.grad(layer(x)[0].sum(), x)
    routing = layer.route(scene.dense)
    (wanted,) = torch.autograd.grad(layer.mix(x, routing).sum(), x)
    torch.testing.assert_close(got, wanted)


def test_kmeans_finds_separate_directions_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.eye(3, 6)
    x = (centres[torch.arange(90) % 3] + 0.2 * torch.randn(90, 6, generator=generator)) * (
        1 + torch.arange(90)[:, None]
    )
    found = direction_kmeans(x, 3, torch.Generator().manual_seed(1))
    means = torch.stack([F.normalize(x[i::3], dim=1).mean(0) for i in range(3)])
    for mean in means:
        assert float((found - mean).norm(dim=1).min()) < 1e-5
    order = torch.randperm(90, generator=generator)
    torch.testing.assert_close(direction_kmeans(x[order], 3, torch.Generator().manual_seed(1)), found)
    sparse = direction_kmeans(SparseFeatures.from_dense(x), 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(sparse, found)


def test_kmeans_with_fewer_rows_than_clusters_is_finite() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert direction_kmeans(x, 4, torch.Generator().manual_seed(0)).isfinite().all()


def test_cost_counts_router_and_used_experts() -> None:
    config = RbMConfig(hidden=8, layers=3, experts=5, k=2)
    nnz, nodes = 50, 10
    experts = 2 * (nnz * 8 + nodes * (8 * 8 + 8 * 3))
    assert config.macs(20, 3, nodes, 0, nnz) == experts + 5 * (nnz + nodes * (8 + 8))
    one = (20 + 1) * 8 + (8 + 1) * 8 + (8 + 1) * 3
    assert parameter_count(config.build(20, 3, Randomness(0))) == 5 * one + 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": 5}, r"rbm.k: expected a value in \[1, 4\], got 5"),
        ({"experts": 0}, "rbm.experts: expected a value at least 1"),
        ({"temperature": 0.0}, "rbm.temperature: expected a value above 0"),
        ({"routing": "fixed"}, "rbm.routing: expected one of memory, frozen, random, random_each"),
        ({"decay": 1.5}, "rbm.decay: expected a value in"),
    ],
)
def test_bad_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        RbMConfig(**fields)
