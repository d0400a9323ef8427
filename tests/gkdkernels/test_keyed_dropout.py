"""Dropout that is a function of (key, element)."""

from __future__ import annotations

import pytest
import torch
from gkdkernels import keyed_dropout


def test_zero_probability_is_the_identity() -> None:
    x = torch.randn(3, 4)
    assert keyed_dropout(x, 0.0, 1) is x


def test_certain_drop_is_zero() -> None:
    assert not keyed_dropout(torch.ones(3, 4), 1.0, 1).any()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.6, 0.9])
def test_rate_and_scale(p: float) -> None:
    y = keyed_dropout(torch.ones(500, 401), p, 3)
    rate = float((y == 0).double().mean())
    assert abs(rate - p) < 5 * (p * (1 - p) / y.numel()) ** 0.5  # five standard errors
    assert torch.unique(y).tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=2e-4)


def test_neighbours_in_one_draw_are_independent() -> None:
    dropped = (keyed_dropout(torch.ones(100_000, 4), 0.5, 3) == 0).double()
    assert (torch.corrcoef(dropped.t()) - torch.eye(4)).abs().max() < 5 / 100_000**0.5


def test_mask_is_pinned() -> None:
    y = keyed_dropout(torch.ones(16), 0.5, 42)
    assert y.tolist() == [
        2.0,
        0.0,
        0.0,
        2.0,
        0.0,
        2.0,
        2.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        2.0,
        0.0,
        0.0,
        0.0,
    ]  # the same on every machine: published runs depend on it


def test_depends_on_the_key_and_not_on_global_state() -> None:
    x = torch.ones(7, 9)
    first, state = keyed_dropout(x, 0.5, 1), torch.get_rng_state()
    torch.rand(5)
    assert torch.equal(first, keyed_dropout(x, 0.5, 1))
    torch.set_rng_state(state)
    assert not torch.equal(first, keyed_dropout(x, 0.5, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_mask_depends_on_the_logical_element_and_not_on_layout_or_dtype() -> None:
    x = torch.ones(9, 7)
    first = keyed_dropout(x, 0.5, 1)
    assert torch.equal(first, keyed_dropout(x.t().contiguous().t(), 0.5, 1))
    assert torch.equal(first.double(), keyed_dropout(x.double(), 0.5, 1))


def test_gradient_is_the_mask() -> None:
    x = torch.full((5, 5), 2.0, requires_grad=True)
    y = keyed_dropout(x, 0.5, 1)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad * 2, y)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bad_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\]"):
        keyed_dropout(torch.ones(3), p, 1)
