"""The corrected resampled t, for splits that overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gkdbench.errors import UserError
from gkdbench.report.statistics.descriptive import finite


def nadeau_bengio(differences: Sequence[float], test_train_ratio: float) -> tuple[float, float]:
    """Corrected resampled t and its two-sided p for overlapping random splits or folds.

    t = mean / sqrt((1/n + n_test/n_train) s^2), n - 1 degrees of freedom (Nadeau, Bengio, Machine Learning 52, 2003).

    Args:
        differences: paired differences, one per split; at least two.
        test_train_ratio: test items over training items of one split.
    """
    from scipy.special import stdtr

    array = finite(differences)
    if array.size < 2 or test_train_ratio <= 0:
        raise UserError(
            f"expected two or more differences and a ratio above 0, got {array.size} and ratio {test_train_ratio}"
        )
    spread = math.sqrt((1 / array.size + test_train_ratio) * float(array.var(ddof=1)))
    if spread == 0.0:
        return (0.0, 1.0) if array[0] == 0.0 else (math.copysign(math.inf, array[0]), 0.0)
    value = float(array.mean()) / spread
    return value, float(2 * stdtr(array.size - 1, -abs(value)))
