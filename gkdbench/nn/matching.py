"""Widths of MLP controls that match another model's parameters or multiply-adds (protocol.md, controls G1 and G2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from gkdbench.errors import UserError
from gkdbench.nn.mlp import MLPConfig

TOLERANCE = 0.01


def mlp_parameters(config: MLPConfig, in_features: int, out_features: int) -> int:
    """Trainable scalars of an MLP: weights and biases, and two vectors per norm."""
    widths = config.widths(in_features, out_features)
    linear = sum((a + 1) * b for a, b in pairwise(widths))
    return linear + (0 if config.norm == "none" else 2 * sum(widths[1:-1]))


def match_parameters(target: int, config: MLPConfig, in_features: int, out_features: int) -> MLPConfig:
    """`config` with the width whose parameters come nearest to `target`.

    Raises:
        UserError: no width comes within 1 %, or the MLP has no hidden layer.
    """
    return _match("parameters", target, config, lambda mlp: mlp_parameters(mlp, in_features, out_features))


def match_macs(target: float, config: MLPConfig, in_features: float, out_features: int) -> MLPConfig:
    """`config` with the width whose multiply-adds per node come nearest to `target`.

    Args:
        target: multiply-adds per node of the model to match.
        in_features: non-zeros per node that the first layer multiplies; a mean, so it may be fractional.

    Raises:
        UserError: no width comes within 1 %, or the MLP has no hidden layer.
    """

    def macs(mlp: MLPConfig) -> float:
        inner = (mlp.layers - 2) * mlp.hidden**2
        return (in_features + out_features) * mlp.hidden + inner

    return _match("multiply-adds per node", target, config, macs)


def _match(what: str, target: float, config: MLPConfig, cost: Callable[[MLPConfig], float]) -> MLPConfig:
    if config.layers < 2:
        raise UserError(f"layers: expected 2 or more, got 1, which has no width to match {what} with")
    low, high = 1, 2
    while cost(replace(config, hidden=high)) < target:
        low, high = high, 2 * high
    while high - low > 1:  # the cost rises with the width
        middle = (low + high) // 2
        low, high = (middle, high) if cost(replace(config, hidden=middle)) < target else (low, middle)
    best = min((replace(config, hidden=width) for width in (low, high)), key=lambda mlp: abs(cost(mlp) - target))
    got = cost(best)
    if abs(got - target) > TOLERANCE * target:
        raise UserError(
            f"a {config.layers}-layer MLP: expected a width that comes within 1 % of {target:g} {what}, got none; "
            f"the nearest, {best.hidden}, has {got:g}; change the number of layers"
        )
    return best
