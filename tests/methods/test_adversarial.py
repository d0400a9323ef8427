"""Attacks stay in their box, raise the loss, repeat, and leave nothing behind."""

from typing import Any

import pytest
import torch
from gkdkernels import SparseFeatures
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness
from gkdbench.training.blocks.adversarial import adversarial_loss, densified, perturbation
from gkdbench.training.blocks.encodings import beside
from gkdbench.training.losses import supervised

EPS = 0.1


def rows(count: int = 20) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def student(**settings: Any) -> Model:
    return MLPConfig(hidden=8, layers=2, **settings).build(5, 3, Randomness(0)).train()


LABELS = torch.arange(20) % 3


def test_a_linear_loss_is_raised_by_five_quarter_steps_and_the_box_holds() -> None:
    """The sign never changes: delta is clip(start + 5 eps / 4 sign), start uniform in the box."""
    slope = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.1])
    delta = perturbation(rows(500), lambda x: (x @ slope).sum(), eps=EPS, steps=5, key=3)
    assert delta.abs().max() <= EPS
    assert ((delta * slope.sign()) >= EPS / 4 - 1e-6).all()
    start = perturbation(rows(500), lambda x: (x @ slope).sum(), eps=EPS, steps=0, key=3)
    assert abs(float(start.mean())) < EPS / 20
    assert float(start.std()) == pytest.approx(EPS / 3**0.5, rel=0.05)
    torch.testing.assert_close(delta, (start + 1.25 * EPS * slope.sign()).clamp(-EPS, EPS))


def test_an_attack_raises_a_networks_loss_more_than_noise_does() -> None:
    model, x = student(dropout=0.0), rows()

    def loss(inputs: Tensor) -> Tensor:
        return supervised(model(inputs), LABELS)

    noise, attack = (perturbation(x, loss, eps=EPS, steps=steps, key=0) for steps in (0, 5))
    with torch.no_grad():
        clean, noisy, attacked = (float(loss(x + delta)) for delta in (torch.zeros(5), noise, attack))
    assert attacked > max(clean, noisy) + 0.01


def test_attacks_repeat_and_touch_neither_gradients_nor_generators() -> None:
    model, x = student(dropout=0.5), rows()
    before = torch.get_rng_state()
    found = [perturbation(x, lambda z: supervised(model(z), LABELS), eps=EPS, steps=5, key=k) for k in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    assert not any(delta.requires_grad for delta in found)


@pytest.mark.parametrize("freeze", [True, False])
def test_running_statistics_change_only_where_the_release_lets_them(freeze: bool) -> None:
    model = student(dropout=0.0, norm="batch")
    before = {name: value.clone() for name, value in model.named_buffers()}
    loss = adversarial_loss(
        model, rows(), lambda x: supervised(model(x), LABELS), eps=EPS, steps=5, freeze_stats=freeze
    )
    loss.backward()  # type: ignore[no-untyped-call]
    same = all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert same == freeze
    assert all(p.grad is not None for p in model.parameters())


def test_an_empty_box_gives_the_clean_loss_of_the_same_sub_network() -> None:
    model = student(dropout=0.5)
    attacked = adversarial_loss(model, rows(), lambda x: supervised(model(x), LABELS), eps=0.0, steps=5)
    assert torch.equal(attacked, supervised(model(rows()), LABELS))


def test_sparse_rows_are_refused_by_the_attack_and_made_dense_before_it() -> None:
    model = student(dropout=0.0)
    x = rows() * (rows() > 0)
    sparse = SparseFeatures.from_dense(x[:, :3])
    for features in (sparse, beside(sparse, x[:, 3:])):
        with pytest.raises(
            UserError, match=f"adversarial inputs: expected dense features, got {type(features).__name__}"
        ):
            perturbation(features, lambda z: z.sum(), eps=EPS, steps=5, key=0)
    assert torch.equal(densified(sparse), x[:, :3])
    assert torch.equal(densified(beside(sparse, x[:, 3:])), x)
    assert densified(x) is x
    both = [
        adversarial_loss(model, features, lambda z: supervised(model(z), LABELS), eps=EPS, steps=5)
        for features in (x, beside(sparse, x[:, 3:]))
    ]
    assert torch.equal(both[0], both[1])
