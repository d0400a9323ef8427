"""Paired statistics of a table (protocol.md, section 5): functions of numbers, seeded, in the units they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError

MIN_RUNS = 10  # below, a mean is a preview
TIE = 0.002  # 0.2 points: a smaller difference is a tie whatever its p value
LEVEL = 0.05
EXACT_UP_TO = 16  # 2^16 sign patterns are enumerated
_ROUNDING = 1e-12  # relative: patterns whose means differ by rounding only count as equal

ComparisonOutcome = Literal["win", "tie", "loss"]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and unbiased standard deviation (ddof=1; None for one value)."""
    array = _finite(values)
    return float(array.mean()), float(array.std(ddof=1)) if array.size > 1 else None


def bootstrap_interval(
    differences: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences.

    Differences are sorted first, so that the interval does not depend on the order of the runs.
    """
    array = np.sort(_finite(differences))
    draws = np.random.default_rng(seed).integers(0, array.size, size=(resamples, array.size))
    low, high = np.quantile(array[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float], *, flips: int = 100_000, seed: int = 0) -> float:
    """Two-sided sign-flip permutation p value of "the mean paired difference is zero".

    Exact up to 16 pairs; above, `flips` seeded sign patterns with the observed one counted among them. Depends on the
    absolute differences and the absolute mean only: neither order nor a common change of sign moves it.
    """
    array = _finite(differences)
    size, observed = np.sort(np.abs(array)), abs(float(array.sum()))
    least = observed - _ROUNDING * float(size.sum())
    if array.size <= EXACT_UP_TO:
        patterns = 1 - 2 * ((np.arange(2**array.size)[:, None] >> np.arange(array.size)) & 1)
        return float((np.abs(patterns @ size) >= least).mean())
    rng, hits, block = np.random.default_rng(seed), 0, 10_000  # in blocks: bounded memory for many pairs
    for start in range(0, flips, block):
        patterns = 1 - 2 * rng.integers(0, 2, size=(min(block, flips - start), array.size))
        hits += int((np.abs(patterns @ size) >= least).sum())
    return (1 + hits) / (1 + flips)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p values of one table, in their order (Holm 1979)."""
    order = np.argsort(np.asarray(p_values, dtype=np.float64), kind="stable")
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = highest
    return corrected


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean of paired differences, its 95% bootstrap interval, and the sign-flip p: alone, and Holm-corrected."""

    difference: float
    interval: tuple[float, float]
    p_alone: float
    p_value: float


def paired(comparisons: Sequence[Sequence[float]]) -> list[Paired]:
    """The comparisons of one table, each given by its differences run by run."""
    alone = [sign_flip_p(differences) for differences in comparisons]
    return [
        Paired(fmean(differences), bootstrap_interval(differences), p_alone, p_value)
        for differences, p_alone, p_value in zip(comparisons, alone, holm(alone), strict=True)
    ]


def nadeau_bengio(differences: Sequence[float], test_train_ratio: float) -> tuple[float, float]:
    """Corrected resampled t and its two-sided p for overlapping random splits or folds.

    t = mean / sqrt((1/n + n_test/n_train) s^2), n - 1 degrees of freedom (Nadeau, Bengio, Machine Learning 52, 2003).

    Args:
        differences: paired differences, one per split; at least two.
        test_train_ratio: test items over training items of one split.
    """
    from scipy.stats import t as student

    array = _finite(differences)
    if array.size < 2 or test_train_ratio <= 0:
        raise UserError(
            f"expected two or more differences and a ratio above 0, got {array.size} and ratio {test_train_ratio}"
        )
    spread = math.sqrt((1 / array.size + test_train_ratio) * float(array.var(ddof=1)))
    if spread == 0.0:
        return (0.0, 1.0) if array[0] == 0.0 else (math.copysign(math.inf, array[0]), 0.0)
    value = float(array.mean()) / spread
    return value, float(2 * student.sf(abs(value), array.size - 1))


def outcome(difference: float, p_value: float, *, tie: float = TIE) -> ComparisonOutcome:
    """Win, tie or loss of the first over the second at the (corrected) 5% level; below `tie` a difference is a tie."""
    if abs(difference) < tie - _ROUNDING or p_value >= LEVEL:
        return "tie"
    return "win" if difference > 0 else "loss"


def average_ranks(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Average rank (1 is best, ties share the middle) of the rows that have a score in every column.

    Args:
        scores: row -> column -> score, higher is better; None or absent: incomplete, and the row gets no rank.
    """
    from scipy.stats import rankdata

    columns = sorted({column for row in scores.values() for column in row})
    names = [name for name, row in scores.items() if columns and all(row.get(c) is not None for c in columns)]
    if not names:
        return {}
    table = np.array([[scores[name][column] for column in columns] for name in names], dtype=np.float64)
    ranks: NDArray[np.float64] = rankdata(-table, axis=0).mean(axis=1)
    return dict(zip(names, ranks.tolist(), strict=True))


def seeds_needed(difference: float, std: float, *, power: float = 0.8, level: float = LEVEL) -> int:
    """How many pairs a two-sided paired t test needs to find `difference`, with its sign, with probability `power`.

    Args:
        difference: the mean paired difference that is claimed, not zero.
        std: ddof=1 standard deviation of the paired differences, same unit.
    """
    from scipy.stats import nct
    from scipy.stats import t as student

    if difference == 0.0 or std < 0.0 or not 0.0 < power < 1.0:
        raise UserError(
            f"expected difference != 0 and power in (0, 1), got difference {difference}, std {std}, power {power}"
        )
    effect = abs(difference) / std if std > 0.0 else math.inf

    def found(pairs: int) -> bool:
        critical, shift = student.isf(level / 2, pairs - 1), effect * math.sqrt(pairs)
        if shift > critical + 30:  # the non-central t overflows far out, where the power is 1 anyway
            return True
        return bool(nct.sf(critical, pairs - 1, shift) >= power)

    high = 2
    while not found(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise UserError(
            f"expected one or more finite numbers, none missing, got {array.size} values of shape {array.shape}"
        )
    return array
