"""Options of the mixtures as their official code computes them, restated; the optimiser's start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_rbm_method import SHORT, SMALL, objective
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.methods.mixture import _student, _types
from gkdbench.nn.mixture import MixtureModel
from gkdbench.training.steps import adam

LOSSES = {"label_weight": 0.3, "commitment": 0.2, "spread": 0.1, "balance": 0.4}
VARIANTS = pytest.mark.parametrize("variant", ["corrected", "as_released"])


def batch_of(view: Any) -> tuple[Any, _types.MixtureBatch]:
    observed, labelled = torch.arange(3, 70), torch.arange(0, 40, 2)
    items = torch.cat([observed, view.train.position[labelled]])
    return view.inputs.rows(NodeSet(view.items, items)), _types.MixtureBatch(observed, labelled)


@VARIANTS
@pytest.mark.parametrize("name", ["rbm", "moe"])
def test_attacks_raise_all_losses_and_the_student_lowers_all_of_them(bench: Any, name: str, variant: str) -> None:
    """`AdversarialFeatureAugmenter.forward`: ascent of ``loss + aux_loss``, then ``weight * (loss + aux_loss)``."""
    losses = {key: value for key, value in LOSSES.items() if name == "rbm" or key not in ("commitment", "spread")}
    options = {**losses, "variant": variant, "adv_weight": 0.05, "adv_eps": 0.04, "adv_steps": 3}
    loss, view, model, _ = objective(bench, name, **options)
    plain, *_ = objective(bench, name, **{**options, "adv_weight": 0.0})
    plain._model = model
    rows, batch = batch_of(view)
    model.train()
    for part in model.modules():
        if hasattr(part, "updating"):
            part.updating = False  # memories stand still, so that forwards can be compared
    wanted_x = ascent(rows, lambda x: plain(x, batch), model, steps=3, eps=0.04)
    wanted = 0.05 * plain(wanted_x, batch)
    plain.means()
    loss(rows, batch)
    assert loss.means()["adversarial"] == pytest.approx(float(wanted.detach()), rel=1e-6)


def ascent(rows: Tensor, loss: Any, model: MixtureModel, *, steps: int, eps: float) -> Tensor:
    """Projected gradient ascent, restated."""
    generator = torch.Generator().manual_seed(model.randomness.key("attack"))
    delta = torch.empty(rows.shape).uniform_(-eps, eps, generator=generator)
    for _ in range(steps):
        x = (rows + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)
        delta = (delta + eps / 4 * gradient.sign()).clamp(-eps, eps)
    return rows + delta


@VARIANTS
def test_similarity_compares_labelled_rows_of_the_raw_first_layer(bench: Any, variant: str) -> None:
    """``MSE(G(dropout(ReLU(Linear(h1)))), G(t))`` on the batch of training nodes."""
    model_fields = {**SMALL, "norm": "batch", "dropout": 0.4}
    loss, view, model, teacher = objective(bench, model=model_fields, variant=variant, similarity=0.7, **LOSSES)
    rows, batch = batch_of(view)
    model.train()
    layer = model.expert_layers[0]
    layer.updating = False
    routing = layer.route(rows)
    first = layer.mix(rows, routing)[batch.observed.numel() :]
    mapped = F.relu(loss._similarity.linear(first))
    mask = loss._similarity.dropout(torch.ones_like(mapped))
    assert 0.3 < float((mask == 0).float().mean()) < 0.5
    student = mapped * mask
    target = teacher.hidden.value[view.train.position[batch.labelled]]
    wanted = 0.7 * ((student @ student.T - target @ target.T) ** 2).mean()
    loss(rows, batch)
    assert loss.means()["similarity"] == pytest.approx(float(wanted.detach()), rel=1e-6)


def test_similarity_needs_labelled_rows_even_if_labels_weigh_nothing(bench: Any) -> None:
    run = bench.run("rbm", model=SMALL, label_weight=0.0, similarity=0.1, **SHORT)
    assert (run.scored.arrays["terms/similarity"] > 0).all()


def routed_step(bench: Any, *, fresh: bool) -> dict[str, Tensor]:
    """By how much one step after 5000 steps of expert 0 alone moves each expert's weights, over the learning rate."""
    loss, view, model, _ = objective(bench, model={**SMALL, "gate": True}, **LOSSES)
    optimiser = adam(loss.trained, lr=1e-3, weight_decay=1e-4)
    rows, batch = batch_of(view)
    for routed in (False, True):
        if routed:
            for state in optimiser.state.values():
                state["step"].fill_(5000)  # as far as bias corrections know
            model.begin_routing(view.inputs.features)
            if fresh:
                _student.forget_moments(optimiser, model)
        model.routed = routed
        for _ in range(1 if routed else 20):
            before = {name: value.detach().clone() for name, value in model.named_parameters()}
            optimiser.zero_grad()
            loss(rows, batch).backward()
            optimiser.step()
    moved = {
        name: (value - before[name]).abs().flatten(1) / 1e-3
        for name, value in model.named_parameters()
        if value.ndim > 1
    }
    return {name: value.max(dim=1).values for name, value in moved.items()}


def test_copied_experts_and_gates_begin_with_steps_of_the_learning_rate(bench: Any) -> None:
    inherited, fresh = routed_step(bench, fresh=False), routed_step(bench, fresh=True)
    assert max(float(steps[1:].detach().max()) for steps in inherited.values()) > 2, "else there is nothing to mend"
    assert max(float(steps.detach().max()) for steps in fresh.values()) < 1.01


@pytest.mark.parametrize(
    ("name", "variant", "anew"),
    [
        ("rbm", "corrected", True),
        ("rbm", "as_released", True),
        ("moe", "corrected", True),
        ("moe", "as_released", False),
    ],
)
def test_the_optimiser_begins_anew_where_experts_are_copies(bench: Any, name: str, variant: str, anew: bool) -> None:
    """The official MoE trains each expert on its slice of a batch: these are no copies, and keep their moments."""
    loss, view, model, _ = objective(bench, name, variant=variant)
    optimiser = adam(loss.trained, lr=1e-3, weight_decay=0.0)
    rows, batch = batch_of(view)
    model.routed = False
    loss(rows, batch).backward()
    optimiser.step()
    model.begin_routing(view.inputs.features)
    _student.forget_moments(optimiser, model)
    weights = [layer.weight for layer in model.expert_layers]
    assert all((weight in optimiser.state) is not anew for weight in weights)
    copies = all(bool((weight == weight[:1]).all()) for weight in weights)
    assert copies is anew
