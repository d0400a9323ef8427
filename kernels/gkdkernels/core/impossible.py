"""Classes that a distribution rules out: ``0 log 0 = 0``."""

from __future__ import annotations

from torch import Tensor


def settled(logarithm: Tensor, p: Tensor) -> Tensor:
    """`logarithm`, 0 where it is infinite or NaN and its factor `p` is 0; NaN of a row that is NaN stays.

    Args:
        logarithm: ``log p``, or a difference of logarithms; differentiable, with gradient 0 where it was replaced.
        p: probabilities of the same shape.
    """
    return logarithm.masked_fill((p == 0) & ~logarithm.isfinite(), 0.0)
