"""Two configurations against each other: measured in turns, each beside the reference, on one data set."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.execute.cost.run import run_cost_suite
from gkdbench.execute.progress import Progress
from gkdbench.execute.suite import Grid, MethodEntry, Suite
from gkdbench.measure.cost.session import MeasureSettings
from gkdbench.records.measurement import Comparable, Measurement, TimedRatio, load_measurement, ratio_of
from gkdbench.records.schema import Record

ROUNDS = 3
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class CostComparison:
    """How much of B's time A takes.

    Attributes:
        low, high: 95% interval, from the intervals of all measurements and their spread over the rounds.
        rounds: measurements of each side.
        flags: of noise.
    """

    measure: Comparable
    a: str
    b: str
    value: float
    low: float
    high: float
    rounds: int
    flags: tuple[str, ...]

    def to_text(self) -> str:
        """One sentence, and a line for each flag."""
        found = f"{self.measure}: {self.a} takes {self.value:.2f}x [{self.low:.2f}, {self.high:.2f}] of {self.b}"
        return "\n".join([f"{found} ({self.rounds} rounds)", *self.flags])


def compare_cost(
    a: Record,
    b: Record,
    measure: Comparable,
    *,
    data: Path | None,
    device: str,
    progress: Progress,
    rounds: int = ROUNDS,
    settings: MeasureSettings | None = None,
) -> CostComparison:
    """Measure the configurations of two records in turns, A and B, `rounds` times each; nothing is stored.

    Raises:
        UserError: two data sets or numbers of threads, or a measurement that failed.
    """
    for what, ours, theirs in (("data set", a.dataset, b.dataset), ("number of threads", a.threads, b.threads)):
        if ours != theirs:
            raise UserError(
                f"compare --measure: expected two records of one {what}, got {ours} and {theirs}; choose others"
            )
    found: tuple[list[Measurement], list[Measurement]] = ([], [])
    for number in range(rounds):
        for record, kept in zip((a, b), found, strict=True):
            progress.note(f"round {number + 1} of {rounds}: {record.label}")
            kept.append(_measured(record, data, device, progress, settings))
    return combined(measure, *found)


def _measured(
    record: Record, data: Path | None, device: str, progress: Progress, settings: MeasureSettings | None
) -> Measurement:
    entry = MethodEntry(method=record.method, overrides=record.config)
    grid = Grid(datasets=[record.dataset], splits=[record.split], methods=[entry])
    suite = Suite(name="compare", seeds=(0,), measures="cost", threads=record.threads, grids=[grid])
    with tempfile.TemporaryDirectory(prefix="gkdbench-compare-") as folder:
        done = run_cost_suite(
            suite, out=Path(folder), data=data, device=device, threads=None, jobs=1, only=None, retry=False,
            retry_noisy=False, rerun=False, max_cells=None, progress=progress, settings=settings,
        )  # fmt: skip
        if done.absent:
            raise UserError(done.absent[0])
        if done.failures:
            raise UserError(f"{record.label} could not be measured: {done.failures[0][1]}")
        return load_measurement(done.records[0])


def combined(measure: Comparable, a: Sequence[Measurement], b: Sequence[Measurement]) -> CostComparison:
    """The ratio of A to B from their ratios to the same reference.

    Raises:
        UserError: one side has no such number (a method that trains nothing has no epoch).
    """
    sides = []
    for side in (a, b):
        ratios = [ratio_of(one, measure) for one in side]
        if None in ratios:
            raise UserError(f"{side[0].label} has no {measure} to compare; choose another --measure")
        sides.append(_log_mean([one for one in ratios if one is not None]))
    (ours, our_error), (theirs, their_error) = sides
    error = NORMAL_95 * math.hypot(our_error, their_error)
    middle = ours - theirs
    flags = tuple(dict.fromkeys(flag for one in [*a, *b] for flag in one.flags))
    low, high = math.exp(middle - error), math.exp(middle + error)
    return CostComparison(measure, a[0].label, b[0].label, math.exp(middle), low, high, len(a), flags)


def _log_mean(ratios: Sequence[TimedRatio]) -> tuple[float, float]:
    """(mean logarithm, its standard error): within the measurements, and between them."""
    logs = [math.log(one.value) for one in ratios]
    within = sum(((math.log(one.high) - math.log(one.low)) / (2 * NORMAL_95)) ** 2 for one in ratios) / len(ratios) ** 2
    between = statistics.variance(logs) / len(logs) if len(logs) > 1 else 0.0
    return statistics.fmean(logs), math.sqrt(max(within, between))
