"""Spikes: a total loss that blew up after it had been small, so that an early best hides a divergence (trap 33)."""

from __future__ import annotations

import math
from collections.abc import Iterable

LOSS_SPIKE = "loss spike"
"""Flag of a row whose total loss blew up."""


def is_spiked(losses: Iterable[float], *, times: float = 10.0) -> bool:
    """Whether a loss is more than `times` its smallest value before, and more than half of the first one.

    Args:
        losses: total loss of every epoch.
    """
    low, half = math.inf, None
    for value in map(float, losses):
        half = abs(value) / 2 if half is None else half
        if value > times * low and value > half:
            return True
        low = min(low, max(value, 1e-12))
    return False
