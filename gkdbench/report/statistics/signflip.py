"""The sign-flip test of paired differences, and the interval that it leaves: one computation, so that both agree.

A flip of the signs of a subset S of the runs gives a mean at least as far from the hypothesis t as the observed one if,
and only if, t lies between the mean of the differences in S and the mean of the others. So p(t) is the share of the
subsets whose two means enclose t, it falls to both sides of the observed mean, and the interval of all t with
p(t) >= 1 - level ends at two order statistics of those means. It excludes 0 exactly where p(0) < 1 - level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gkdbench.report.statistics.descriptive import finite

EXACT_UP_TO = 16
"""So many runs have all their sign patterns enumerated; more have `FLIPS` seeded ones."""
FLIPS = 100_000
_ROUNDING = 1e-12  # relative to the largest difference: patterns that differ by rounding only count as equal


@dataclass(frozen=True, slots=True)
class SignFlip:
    """The sign-flip test of the mean of N differences.

    Attributes:
        runs: N. difference: their mean.
        p_value: two-sided, of "the differences lie symmetrically around 0".
        interval: of the mean, 95 %. narrow: 90 %, for two one-sided tests at 5 %. Ends are infinite where so few runs
            exclude nothing (fewer than 6, and 5).
    """

    runs: int
    difference: float
    p_value: float
    interval: tuple[float, float]
    narrow: tuple[float, float]


def sign_flip(differences: Sequence[float], *, flips: int = FLIPS, seed: int = 0) -> SignFlip:
    """The test and its intervals: exact up to 16 runs, above by `flips` seeded patterns and the observed one.

    Neither the order of the runs nor a common change of sign moves the p value; the latter mirrors the interval.

    Args:
        differences: [N] of paired runs. flips, seed: of the sampled patterns.

    Raises:
        UserError: no number, or one that is not finite.
    """
    values = finite(differences)
    mean = math.fsum(values) / values.size
    mirrored = mean < 0 or (mean == 0 and tuple(np.sort(values)) < tuple(np.sort(-values)))
    turned = np.sort(-values if mirrored else values)
    lower, upper = _enclosing(turned, flips, seed)
    slack = _ROUNDING * float(np.abs(values).max())
    p = float((lower <= slack).mean())
    ends = [_ends(lower, upper, level, slack) for level in (0.95, 0.90)]
    if mirrored:
        ends = [(0.0 - high, 0.0 - low) for low, high in ends]
    return SignFlip(int(values.size), mean, p, ends[0], ends[1])


def sign_flip_p(differences: Sequence[float], *, flips: int = FLIPS, seed: int = 0) -> float:
    """The two-sided p value of `sign_flip` alone."""
    return sign_flip(differences, flips=flips, seed=seed).p_value


def sign_flip_interval(values: Sequence[float], *, flips: int = FLIPS, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` (differences, or readings) that the sign-flip test leaves."""
    return sign_flip(values, flips=flips, seed=seed).interval


def _enclosing(values: NDArray[np.float64], flips: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per pattern the smaller and the larger of the two means, [P] each; the pattern that flips none encloses all."""
    subsets = half_of_subsets(values.size) if values.size <= EXACT_UP_TO else _sampled_subsets(values.size, flips, seed)
    size = subsets.sum(axis=1)
    inside, total = subsets @ values, math.fsum(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = inside / size, (total - inside) / (values.size - size)
    trivial = (size == 0) | (size == values.size)
    lower, upper = np.minimum(one, other), np.maximum(one, other)
    lower[trivial], upper[trivial] = -np.inf, np.inf
    return lower, upper


def _ends(lower: NDArray[np.float64], upper: NDArray[np.float64], level: float, slack: float) -> tuple[float, float]:
    """The smallest and the largest t that at least a share 1 - level of the pairs (lower, upper) enclose."""
    rank = max(1, math.ceil((1 - level) * lower.size - 1e-9))
    low = float(np.partition(lower, rank - 1)[rank - 1])
    high = float(np.partition(upper, upper.size - rank)[upper.size - rank])
    return (0.0 if abs(low) <= slack else low), (0.0 if abs(high) <= slack else high)


@lru_cache(maxsize=32)
def half_of_subsets(runs: int) -> NDArray[np.float64]:
    """Of each subset of `runs` runs and its complement one, the empty one first: [2^(runs - 1), runs], 1 or 0."""
    codes = np.arange(2 ** (runs - 1))[:, None]
    return ((codes >> np.arange(runs)) & 1).astype(np.float64)


@lru_cache(maxsize=8)
def _sampled_subsets(runs: int, flips: int, seed: int) -> NDArray[np.float64]:
    """The empty subset, then `flips` drawn ones: [flips + 1, runs], 1 or 0."""
    drawn = np.random.default_rng(seed).integers(0, 2, size=(flips + 1, runs), dtype=np.int8).astype(np.float64)
    drawn[0] = 0.0
    return drawn
