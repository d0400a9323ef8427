"""How many runs a question needs, and what a design of so many runs can find."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.report.statistics.descriptive import LEVEL
from gkdbench.report.statistics.family import step_down_of
from gkdbench.report.statistics.signflip import EXACT_UP_TO, half_of_subsets

MOST_RUNS = 1_000
"""A question that needs more runs is said to need more than these."""


def seeds_needed(difference: float, std: float, *, power: float = 0.8, level: float = LEVEL) -> int:
    """How many pairs a two-sided paired t test needs to find `difference`, with its sign, with probability `power`.

    Args:
        difference: the mean paired difference that is claimed, not zero.
        std: ddof=1 standard deviation of the paired differences, same unit.
    """
    if difference == 0.0 or std < 0.0 or not 0.0 < power < 1.0:
        raise UserError(
            f"expected difference != 0 and power in (0, 1), got difference {difference}, std {std}, power {power}"
        )
    effect = abs(difference) / std if std > 0.0 else math.inf
    return _fewest(lambda pairs: _t_power(effect, pairs, level / 2) >= power)


def runs_to_resolve(difference: float, std: float, *, margin: float | None, tests: int = 1) -> int:
    """The fewest runs that find a true difference as large as `difference`, or show it to be within `margin`, with
    probability 0.8; at most `MOST_RUNS` + 1.

    Args:
        difference, std: of the paired differences so far.
        margin: of equivalence; None: only a difference is looked for.
        tests: so many comparisons are in the family: each is counted at 0.05 over this number, which is what the
            largest of independent ones has to pass.
    """
    found = [MOST_RUNS + 1]
    spread = max(std, 1e-12)
    if difference != 0.0:
        found.append(_fewest(lambda n: _t_power(abs(difference) / spread, n, LEVEL / 2 / tests) >= 0.8))
    if margin is not None and abs(difference) < margin:
        near, far = (margin - abs(difference)) / spread, (margin + abs(difference)) / spread
        found.append(_fewest(lambda n: _t_power(near, n, LEVEL) + _t_power(far, n, LEVEL) - 1 >= 0.8))
    return min(found)


def power_of_design(
    gains: Sequence[float], spread: NDArray[np.float64], runs: int, *, others: int = 0, tables: int = 200, seed: int = 0
) -> list[float]:
    """For each of `gains` the probability that a candidate which is that much better than all rivals is found better
    than every one of them, by `tables` simulated tables of normal differences.

    Args:
        gains: true differences, in the unit of `spread`. spread: [m, m], covariance of the differences to m rivals.
        runs: of the design. others: further comparisons of the family, in which nothing differs.
    """
    rng = np.random.default_rng(seed)
    signs = _design_signs(runs, rng)
    width = spread.shape[0]
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # [m, m]
    found = np.zeros(len(gains))
    for _ in range(tables):
        noise = rng.standard_normal((runs, width)) @ root.T  # [R, m]
        rest = rng.standard_normal((runs, others))
        for number, gain in enumerate(gains):
            table = np.hstack([noise + gain, rest])
            p = step_down_of(table, signs)[:width]
            found[number] += bool(((p < LEVEL) & (table[:, :width].sum(axis=0) > 0)).all())
    return (found / tables).tolist()  # type: ignore[no-any-return]


def _design_signs(runs: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if runs <= min(EXACT_UP_TO, 12):
        return 1.0 - 2.0 * half_of_subsets(runs)
    drawn = rng.integers(0, 2, size=(2_000, runs), dtype=np.int8)
    drawn[0] = 0
    return np.where(drawn == 1, -1.0, 1.0)


def _t_power(effect: float, pairs: int, level: float) -> float:
    """Of a one-sided paired t test at `level`, for a true difference of `effect` standard deviations."""
    from scipy.special import nctdtr, stdtrit

    critical, shift = -float(stdtrit(pairs - 1, level)), effect * math.sqrt(pairs)
    if shift > critical + 30:  # the non-central t overflows far out, where the power is 1 anyway
        return 1.0
    return 1.0 - float(nctdtr(pairs - 1, shift, critical))


def _fewest(enough: Callable[[int], bool]) -> int:
    """The smallest number from 2 for which `enough` holds; it holds for all larger ones. Above a million: a million."""
    high = 2
    while not enough(high):
        high *= 2
        if high > 1_000_000:
            return 1_000_000
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
