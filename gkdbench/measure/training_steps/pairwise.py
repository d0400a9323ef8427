"""Two ways to compute the same, timed in turns once they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gkdbench.measure.operators.bench import BenchSettings
from gkdbench.measure.operators.gate import relative_error
from gkdbench.measure.ratios import Ratio, ratio
from gkdbench.measure.timers import Clock, TimedCall, measure

TOLERANCE = 1e-3
"""Relative error of logits, losses and gradients: below one wrong term, above what another order of sums leaves."""


@dataclass(frozen=True, slots=True)
class TimingComparison:
    """One line of the table.

    Attributes:
        limit: the share of the other's time (or memory) that was promised; None where nothing was.
        error: relative, of what both compute; above `TOLERANCE` there is no ratio.
        ratio: ours over theirs; of memory, which has no spread, an interval of one point.
    """

    what: str
    data: str
    against: str
    limit: float | None
    error: float
    ratio: Ratio | None

    @property
    def verdict(self) -> str:
        """ "met", "not met", "not measured", or "" where nothing was promised."""
        if self.ratio is None:
            return "not measured"
        return "" if self.limit is None else "met" if self.ratio.value <= self.limit else "not met"


@dataclass(frozen=True, slots=True)
class PairwiseTiming:
    """One side of a `TimingComparison`."""

    what: str
    data: str
    against: str
    limit: float | None
    error: float
    ours: TimedCall
    theirs: TimedCall

    def compare(self, clock: Clock, settings: BenchSettings) -> TimingComparison:
        """Both sides in turns, if they agree."""
        found = None
        if self.error <= TOLERANCE:
            runs = {"ours": self.ours, "theirs": self.theirs}
            samples = measure(runs, clock, rounds=settings.rounds, budget_s=settings.budget_s)
            found = ratio(*([sample.wall_s for sample in samples[side]] for side in runs))
        return TimingComparison(self.what, self.data, self.against, self.limit, self.error, found)


def largest_error(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The largest relative error of a first tensor to its second."""
    return max(relative_error(a.detach(), b.detach().double()) for a, b in pairs)
