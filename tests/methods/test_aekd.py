"""AE-KD: exact weights on the capped simplex, gradients by formula, the release's cancellation, its baselines."""

from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.errors import UserError
from gkdbench.methods.structure.aekd import _Disagreement, gradients_of
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.capped_simplex import least_norm_weights
from gkdbench.training.losses import hinton
from gkdbench.training.resolve import resolve

STILL = {"hidden": 8, "layers": 2, "dropout": 0.0}


def gram(vectors: np.ndarray) -> np.ndarray:
    return vectors @ vectors.T


@pytest.mark.parametrize("bound", [0.5, 0.6, 1.0])
def test_two_teachers_have_the_closed_form(bound: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.standard_normal((2, 4))
        root = (b @ b - a @ b) / ((a - b) @ (a - b))
        wanted = np.clip(root, 1 - bound, bound)
        found = least_norm_weights(gram(np.stack([a, b])), bound)
        assert found == pytest.approx([wanted, 1 - wanted], abs=1e-7)


@pytest.mark.parametrize(("count", "bound"), [(3, 0.6), (3, 1.0), (4, 0.3), (5, 0.6)])
def test_more_teachers_have_the_least_norm_of_all_weights(count: int, bound: float) -> None:
    rng = np.random.default_rng(count)
    g = gram(rng.standard_normal((count, 3)) + 0.5)
    found = least_norm_weights(g, bound)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0
    assert found.max() <= bound + 1e-9
    tried = rng.dirichlet(np.ones(count), 4000)
    tried = tried[(tried <= bound).all(1)]
    assert (found @ g @ found <= np.einsum("nm,mk,nk->n", tried, g, tried) + 1e-9).all()


def test_equal_teachers_get_a_point_of_the_simplex_and_narrow_bounds_are_refused() -> None:
    assert least_norm_weights(np.ones((3, 3)), 0.6).sum() == pytest.approx(1)
    assert least_norm_weights(np.eye(3), 1 / 3) == pytest.approx([1 / 3] * 3)
    with pytest.raises(
        UserError, match=r"bound: expected 0.333333 or more for 3 teachers, got 0.3: weights cannot sum to 1"
    ):
        least_norm_weights(np.eye(3), 0.3)


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(6, 4, dtype=torch.float64, generator=generator),
        torch.randn(6, 3, 4, dtype=torch.float64, generator=generator),
    )


def test_gradients_are_those_of_the_terms() -> None:
    student, teachers = logits()
    own = student.clone().requires_grad_()
    for m in range(3):
        (wanted,) = torch.autograd.grad(6 * hinton(own, teachers[:, m], tau=4.0), own)
        torch.testing.assert_close(gradients_of(student, teachers, 4.0)[:, m], wanted)


def test_opposite_items_cancel_in_the_release_alone() -> None:
    """Teacher 0 is right on the mean and wrong on every item: the release follows it, the corrected form does not."""
    student = torch.zeros(2, 2, dtype=torch.float64)
    opposite = torch.tensor([[3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    near = torch.tensor([[0.1, 0.0], [0.1, 0.0]], dtype=torch.float64)
    teachers = torch.stack([opposite, near], dim=1)
    found = {}
    for variant in ("corrected", "as_released"):
        method: Any = resolve("aekd", {"teachers": ["gcn", "gat"], "variant": variant, "bound": 1.0})
        found[variant] = _Disagreement(method)._weights(student, teachers).tolist()
    assert found["as_released"] == pytest.approx([1.0, 0.0], abs=1e-9)
    assert found["corrected"][1] > 0.99


def test_the_baselines_are_mean_loss_and_mean_logit() -> None:
    student, teachers = logits()
    losses = [hinton(student, teachers[:, m], tau=4.0).item() for m in range(3)]
    for weights, wanted in (
        ("mean-loss", np.mean(losses)),
        ("mean-logit", hinton(student, teachers.mean(1), tau=4.0).item()),
    ):
        assert _Disagreement(resolve("aekd", {"weights": weights}))(student, teachers).item() == pytest.approx(wanted)  # type: ignore[arg-type]


def test_without_a_weight_it_is_the_solo_run(bench: Any) -> None:
    options = {"model": STILL, "lr": 0.01, "weight_decay": 5e-4, "epochs": 3}
    alone = bench.final("teacher", backbone="gcn", batch_size=None, **options)
    assert identical(bench.final("aekd", gamma=0.0, **options), alone)
    assert not identical(bench.final("aekd", **options), alone)


def test_mean_weights_are_reported(bench: Any) -> None:
    extra = bench.run("aekd", model=STILL, epochs=3).outcome.extra
    assert sum(extra[f"weight.{name}"] for name in ("gcn", "gat", "sage")) == pytest.approx(1)
    assert max(extra.values()) <= 0.6 + 1e-9


def test_a_teacher_twice_is_refused() -> None:
    with pytest.raises(UserError, match="different backbones, got gcn, gcn"):
        resolve("aekd", {"teachers": ["gcn", "gcn"]}).requires()
