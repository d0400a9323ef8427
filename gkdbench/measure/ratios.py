"""What samples of time support: a ratio with its interval, a percentile when there are enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
DOUBT = 0.01  # that a percentile is larger than what is printed


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median over median of paired samples.

    Attributes:
        low, high: of the percentile bootstrap over pairs, at `LEVEL`.
        n: pairs.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How much of `theirs` is `ours`: below 1 is faster. Sample i of both was taken in one round.

    Raises:
        ValueError: different lengths, or nothing.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"paired samples: expected one length above 0, got {len(ours)} and {len(theirs)}")
    value = statistics.median(ours) / statistics.median(theirs)
    pairs = np.random.default_rng(0).integers(0, len(ours), size=(RESAMPLES, len(ours)))
    a, b = (np.median(np.asarray(side, dtype=np.float64)[pairs], axis=1) for side in (ours, theirs))
    low, high = np.quantile(a / b, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(value, float(low), float(high), len(ours))


def percentile(samples: Sequence[float], q: float) -> float | None:
    """An upper bound of the q-quantile, or None from too few samples.

    The largest sample that still leaves t above it, with ``Binomial(n, 1 - q).cdf(t) <= DOUBT`` (the early-stopping
    rule of MLPerf's LoadGen: the 90th percentile needs 44 samples, the 99th 459).

    Args:
        q: in (0, 1).

    Raises:
        ValueError: q out of range.
    """
    from scipy.stats import binom

    if not 0.0 < q < 1.0:
        raise ValueError(f"q: expected a value in (0, 1), got {q}")
    n = len(samples)
    above = int(binom.ppf(DOUBT, n, 1.0 - q)) if n else 0
    while above >= 0 and binom.cdf(above, n, 1.0 - q) > DOUBT:
        above -= 1
    return sorted(samples)[n - 1 - above] if n and above >= 0 else None


def samples_missing(count: int, q: float) -> int:
    """How many samples more than `count` `percentile` needs for the q-quantile; 0 when there are enough.

    Args:
        q: in (0, 1).

    Raises:
        ValueError: q out of range.
    """
    if not 0.0 < q < 1.0:
        raise ValueError(f"q: expected a value in (0, 1), got {q}")
    return max(0, math.ceil(math.log(DOUBT) / math.log(q)) - count)  # q**n <= DOUBT: none of n lies above
