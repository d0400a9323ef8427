"""The point of least norm in the hull of a few vectors, no weight above a bound (Du et al. 2020, eq. 7)."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError

FloatVector = NDArray[np.float64]


def least_norm_weights(gram: FloatVector, bound: float) -> FloatVector:
    """``argmin a' G a`` over ``0 <= a_m <= bound`` and ``sum a = 1``: [M] float64.

    Solved exactly: for every choice of weights at 0 and at the bound the free ones follow from a linear system, and the
    best of the points within the bounds is the answer (3^M systems of at most M + 1 unknowns; M is a few teachers).
    With two teachers that is the closed form, the root of the derivative cut to the interval.

    Args:
        gram: G, [M, M], symmetric, positive semi-definite.

    Raises:
        UserError: ``M * bound < 1``: no weights sum to 1.
    """
    count = len(gram)
    if count * bound < 1:
        raise UserError(
            f"bound: expected {1 / count:g} or more for {count} teachers, got {bound:g}: weights cannot sum to 1"
        )
    best, found = np.inf, np.full(count, 1 / count)
    for places in product((0, 1, 2), repeat=count):
        weights = _stationary(gram, np.array(places), bound)
        if weights.min() < -1e-9 or weights.max() > bound + 1e-9 or abs(weights.sum() - 1) > 1e-9:
            continue
        value = float(weights @ gram @ weights)
        if value < best - 1e-12 * abs(best if np.isfinite(best) else 0.0):
            best, found = value, weights
    clipped: FloatVector = found.clip(0.0, bound)
    total = float(clipped.sum())
    return np.asarray(clipped / total, dtype=np.float64)


def _stationary(gram: FloatVector, places: NDArray[np.int64], bound: float) -> FloatVector:
    """Weights at 0 where `places` is 0, at the bound where it is 1, and free elsewhere."""
    weights = np.where(places == 1, bound, 0.0)
    free = places == 2
    size = int(free.sum())
    if not size:
        return weights
    system = np.ones((size + 1, size + 1))
    system[:size, :size], system[size, size] = gram[np.ix_(free, free)], 0.0
    right = np.append(-(gram @ weights)[free], 1 - weights.sum())
    weights[free] = np.linalg.lstsq(system, right, rcond=None)[0][:size]
    return weights
