"""RbM: its loss, its stages, its controls, and what its release does otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mutual_info_score

from gkdbench.data.nodes import NodeSet
from gkdbench.methods.mixture import _diagnostics, _losses, _objective, _student, _targets, _types
from gkdbench.nn.mixture import MixtureModel, Routing
from gkdbench.testing.method_case import identical
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import build
from gkdbench.training.resolve import resolve

SMALL = {"hidden": 16, "layers": 2, "experts": 4, "k": 2}
SHORT = {"epochs": 3, "pretrain": 2}


def objective(bench: Any, name: str = "rbm", **overrides: Any) -> tuple[Any, Any, MixtureModel, Any]:
    """The loss of one forward, the view, a routed model and the teacher."""
    method: Any = resolve(name, {"model": {**SMALL, "dropout": 0.0}, **overrides})
    view = bench.given("tran").view
    teacher = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view)
    model = build(method.student(), view, seed=0)
    assert isinstance(model, MixtureModel)
    model.begin_routing(view.inputs.features)
    return _objective.MixtureObjective(method, view, teacher, model), view, model, teacher


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.4)])
def test_the_loss_is_that_of_the_formula(bench: Any, weights: tuple[float, float, float]) -> None:
    vq, sim, lb = weights
    options = {"label_weight": 0.3, "tau": 0.7, "commitment": vq, "spread": sim, "balance": lb}
    loss, view, model, teacher = objective(bench, **options)
    observed, labelled = torch.arange(3, 70), torch.arange(0, 40, 2)
    items = torch.cat([observed, view.train.position[labelled]])
    rows = view.inputs.rows(NodeSet(view.items, items))
    trace = model.eval().node_trace(rows, None)
    wanted = 0.7 * kl_to_teacher(trace.logits[:67], teacher.logits.value[observed], tau=0.7)
    wanted = wanted + 0.3 * supervised(trace.logits[67:], view.labels[labelled])
    for layer, routing in zip(model.expert_layers, trace.routings, strict=True):
        memory = F.normalize(layer.memory, dim=1)
        x = F.normalize(routing.x, dim=1)
        weight = torch.zeros(len(x), 4).scatter(1, routing.index, routing.alpha)
        wanted = wanted - vq * (weight * (x @ memory.t())).sum(1).mean() + sim * (memory @ memory.t()).mean()
        wanted = wanted + lb * weight.sum(0).var() / weight.sum(0).mean() ** 2
    got = loss(rows, _types.MixtureBatch(observed, labelled))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    mine = torch.autograd.grad(got, [layer.weight for layer in model.expert_layers])
    reference = torch.autograd.grad(wanted, [layer.weight for layer in model.expert_layers])
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    named = {"commitment": vq, "spread": sim, "balance": lb}
    assert set(loss.means()) == {"kl", "ce", *(name for name, value in named.items() if value)}


def test_routing_losses_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(20, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.stack([torch.arange(20) % 4, (torch.arange(20) + 1) % 4], dim=1)

    def routing(score: torch.Tensor) -> Routing:
        return Routing(torch.zeros(20, 3), index, score.softmax(1), score)

    assert torch.autograd.gradcheck(lambda s: _losses.commitment(routing(s)), (score,))
    assert torch.autograd.gradcheck(lambda s: _losses.variation(_losses.weight_per_expert(routing(s), 4)), (score,))
    unit = torch.eye(3, 5, dtype=torch.float64)
    assert float(_losses.spread(unit)) == pytest.approx(1 / 3)
    assert float(_losses.spread(unit[:1].repeat(3, 1))) == pytest.approx(1.0)


def test_only_routed_epochs_are_selected_and_the_switch_is_smooth(bench: Any) -> None:
    run = bench.run("rbm", model={**SMALL, "norm": "batch", "gate": True}, **SHORT)
    (model,) = run.outcome.models
    assert model["selected_epoch"] > 2
    assert run.outcome.epochs == 5
    assert run.outcome.extra["switch_jump"] <= 1e-5
    for name in ("commitment", "spread", "balance"):
        trace = run.scored.arrays[f"terms/{name}"]
        assert (trace[:2] == 0).all()
        assert (trace[2:] != 0).all()


def test_the_release_jumps_and_selects_among_all_epochs(bench: Any) -> None:
    released = bench.run("rbm", model=SMALL, variant="as_released", **SHORT)
    assert released.outcome.extra["switch_jump"] > 0.1
    reported = []
    for variant in ("corrected", "as_released"):
        run = bench.run("rbm", model=SMALL, variant=variant, epochs=1, pretrain=6, lr=1e-9)
        reported.append(run.outcome.models[0]["selected_epoch"])
    assert reported[0] == 7
    assert reported[1] <= 6


def test_diagnostics_say_where_rows_went(bench: Any) -> None:
    extra = bench.run("rbm", model=SMALL, **SHORT).outcome.extra
    for layer in range(2):
        assert sum(extra[f"load_{layer}_{expert}"] for expert in range(4)) == pytest.approx(1.0)
        assert 0 < extra[f"routing_entropy_{layer}"] <= np.log(2) + 1e-6
        assert 0 < extra[f"expert_class_{layer}"] <= np.log(3)
        assert extra[f"expert_degree_{layer}"] >= 0
        assert 0 < extra[f"memory_drift_{layer}"] < 2
    per_expert = (16 + 1) * 16 + (16 + 1) * 3
    memories = 4 * (16 + 16)
    assert extra["parameters_total"] == 4 * per_expert + 2 + memories
    assert extra["parameters_active"] == 2 * per_expert + 2 + memories


def test_memories_that_stay_have_no_drift(bench: Any) -> None:
    extra = bench.run("rbm", model={**SMALL, "routing": "frozen"}, **SHORT).outcome.extra
    assert extra["memory_drift_0"] == pytest.approx(0.0, abs=1e-6)


def test_mutual_information_of_expert_and_class() -> None:
    """Experts of one class each know it; even ones know nothing; half of both lies between, as sklearn has it."""
    kind = torch.arange(12) % 3
    assert _diagnostics.mutual_information(torch.eye(3)[kind], kind) == pytest.approx(np.log(3))
    assert _diagnostics.mutual_information(torch.full((12, 4), 0.25), kind) == pytest.approx(0.0, abs=1e-12)
    expert = torch.tensor([0, 1, 2, 0, 1, 0, 1, 1, 2, 2, 0, 0])
    wanted = mutual_info_score(kind.numpy(), expert.numpy())
    assert _diagnostics.mutual_information(torch.eye(3)[expert], kind) == pytest.approx(wanted)


def test_without_teacher_weight_the_teacher_is_not_read(bench: Any) -> None:
    options = {"model": SMALL, "label_weight": 1.0, **SHORT}
    assert identical(bench.final("rbm", **options), bench.final("rbm", teacher="gcn", **options))
    more = {**options, "label_weight": 0.5}
    assert not identical(bench.final("rbm", **more), bench.final("rbm", teacher="gcn", **more))


@pytest.mark.parametrize("rule", ["random", "random_each", "frozen"])
def test_controls_train_without_memory_losses(bench: Any, rule: str) -> None:
    options = {"model": {**SMALL, "routing": rule}, **SHORT}
    run = bench.run("rbm", **options)
    assert "terms/commitment" not in run.scored.arrays
    assert "terms/spread" not in run.scored.arrays
    assert (run.scored.arrays["terms/balance"][2:] > 0).all()
    assert identical(run.final["model"], bench.final("rbm", commitment=0.0, spread=0.0, **options))


def test_steps_per_batch_and_per_epoch(bench: Any, adam_steps: Any) -> None:
    """210 nodes in batches of 100: 3 steps an epoch, or one; the release has one of 1 + 3 forwards."""
    options = {"model": SMALL, "batch_size": 100, "epochs": 2, "pretrain": 1}
    bench.run("rbm", **options)
    before = adam_steps()
    counted = []
    for more in ({}, {"steps": "per_epoch"}, {"variant": "as_released"}):
        bench.run("rbm", **options, **more)
        counted.append(adam_steps() - before - sum(counted))
    assert counted == [9, 3, 3]


def test_one_step_on_the_mean_is_the_gradient_of_the_whole(bench: Any) -> None:
    """Two equal halves: the mean of their gradients is that of one batch (the sum is twice it)."""
    loss, view, model, _ = objective(bench, label_weight=0.0, commitment=0.0, spread=0.0, balance=0.0)
    everything = view.inputs.everything.position

    def of(items: torch.Tensor) -> Any:
        return lambda: loss(view.inputs.rows(NodeSet(view.items, items)), _types.MixtureBatch(items, items[:0]))

    found = []
    for parts, mean in (([everything], True), (everything.split(105), True), (everything.split(105), False)):
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        _student.descend_together(model.eval(), still, [of(part) for part in parts], mean=mean)
        found.append(model.expert_layers[0].weight.grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[2], 2 * found[0], rtol=1e-4, atol=1e-7)


def test_the_released_kl_is_none() -> None:
    """Scaled log-probabilities do not sum to 1: negative values, and a minimum that is not at the teacher."""
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    student = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    for tau in (0.5, 2.0):
        assert float(kl_to_teacher(student.detach(), teacher, tau=tau)) > 0
    generator = torch.Generator().manual_seed(0)
    pairs = 3 * torch.randn(200, 2, 3, generator=generator)
    values = [float(_targets.scaled_log_probabilities(s[None], t[None], tau=3.0)) for s, t in pairs]
    assert min(values) < 0
    same = _targets.scaled_log_probabilities(teacher, teacher, tau=1.0)
    assert float(same) == pytest.approx(0.0, abs=1e-6)
    close = _targets.scaled_log_probabilities(student, teacher, tau=1.0)
    torch.testing.assert_close(close, kl_to_teacher(student, teacher))


@pytest.mark.parametrize("released", [False, True])
def test_memories_move_in_attacks_in_the_release_only(bench: Any, released: bool) -> None:
    moved = []
    for steps in (0, 3):
        variant = "as_released" if released else "corrected"
        options = {"adv_weight": 0.1, "adv_steps": steps, "adv_eps": 0.0, "spread": 0.0, "variant": variant}
        loss, view, model, _ = objective(bench, **options)
        items = view.inputs.everything.position
        model.train()
        loss(view.inputs.rows(view.inputs.everything), _types.MixtureBatch(items, items[:0]))
        moved.append(model.router_tensors()[0].clone())
    assert torch.equal(*moved) != released


@pytest.mark.parametrize("released", [False, True])
def test_weight_decay_reaches_memories_in_the_release_only(bench: Any, released: bool) -> None:
    """Of the first layer, whose rows do not depend on weights."""
    variant = "as_released" if released else "corrected"
    options = {"model": SMALL, "spread": 1e-3, "variant": variant, **SHORT}
    light, heavy = (bench.final("rbm", weight_decay=decay, **options)["layers.0.memory"] for decay in (0.0, 10.0))
    assert torch.equal(light, heavy) != released


def test_pushing_apart_is_a_step_down_the_spread() -> None:
    memory = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    loss = 4 * _losses.spread(F.normalize(memory, dim=1))
    (gradient,) = torch.autograd.grad(loss, memory)
    moved = _losses.repelled_memory(memory, 0.3)
    torch.testing.assert_close(moved, memory.detach() - 0.3 * gradient)
    assert float(_losses.spread(F.normalize(moved, dim=1))) < float(loss.detach()) / 4


@pytest.mark.parametrize("released", [False, True])
def test_the_spread_moves_memories_in_proportion_to_its_weight_but_in_the_release(bench: Any, released: bool) -> None:
    """Adam divides a gradient by its own size, so that its weight says nothing."""
    variant = "as_released" if released else "corrected"
    options = {"model": {**SMALL, "dropout": 0.0}, "variant": variant, "weight_decay": 0.0, "commitment": 0.0}
    once = {"epochs": 1, "pretrain": 0, "balance": 0.0, "batch_size": None}
    still, light, heavy = (
        bench.final("rbm", spread=weight, **options, **once)["layers.0.memory"] for weight in (0.0, 1e-3, 1e-2)
    )
    ratio = float((heavy - still).norm() / (light - still).norm())
    assert ratio == pytest.approx(1.0 if released else 10.0, rel=0.02)
