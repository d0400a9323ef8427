"""Means, spreads, and what counts as numbers at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError

MIN_RUNS = 10
"""With fewer runs a mean is a preview, and no word is said of a difference."""
LEVEL = 0.05


def finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` as an array [N] float64.

    Raises:
        UserError: none, not one-dimensional, or one of them is not a finite number.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise UserError(
            f"expected one or more finite numbers, none missing, got {array.size} values of shape {array.shape}, "
            f"{int((~np.isfinite(array)).sum())} of them not finite; leave out runs that have no score"
        )
    return array


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and unbiased standard deviation (ddof=1; None for one value)."""
    array = finite(values)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else None
