"""What the cells of a plan will take: a number of seconds, an interval for it, and how much of it is a guess."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gkdbench.execute.cell import Cell
from gkdbench.execute.planning.estimates import TimeModel, Timing, published_timings, timing_of
from gkdbench.execute.planning.facts import facts_of
from gkdbench.records.store import Store

Basis = Literal["trial", "group", "pair", "method", "nothing"]
"""What an estimate rests on: a trial, measured rows of the group, of the method on the data set, of the method
elsewhere, or of other methods alone."""
SPREAD: dict[Basis, float] = {"trial": 0.4, "group": 0.35, "pair": 0.45, "method": 0.6, "nothing": 1.2}
"""Standard deviation of the logarithm of actual over estimated seconds of a group. That of "method" is what
``suites/studies/plan_accuracy.py`` prints (90% within 2.6 times); the others are rounded from the same records."""
MACHINE_SPREAD = 0.35
"""The same for what all cells share: how fast this machine is, and what else runs on it."""
INSIDE = 1.2816
"""Standard deviations on either side of the middle that hold eight of ten."""
START_S = 0.1
"""Start-up and hand-over of a cell."""
RUN_START_S = 4.0
"""Start of a run: imports, its worker, the first view."""
ENOUGH = 3
"""So many measured groups of a store say how fast its machine is."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The processor time of some cells on one core.

    Args:
        low, high: eight of ten such plans end within.
        guessed: cells of which no row of their method on their data set was ever measured, nor a trial made.
        guesses: one of each of their groups.
    """

    seconds: float
    low: float
    high: float
    guessed: int
    guesses: list[Cell]

    def hours(self, jobs: int) -> tuple[float, float, float]:
        """Wall-clock hours on `jobs` cores: (middle, low, high)."""
        start = RUN_START_S if self.seconds else 0.0
        middle, low, high = ((start + seconds / jobs) / 3600 for seconds in (self.seconds, self.low, self.high))
        return middle, low, high


def forecast(todo: Sequence[Cell], store: Store, trials: Mapping[str, float] | None = None) -> Forecast:
    """The seconds of `todo`.

    Args:
        store: where rows of this machine are.
        trials: key of a group -> seconds of one of its cells, from a trial.
    """
    own = {timing.key: timing for _, record in store.records() if (timing := timing_of(record)) is not None}
    published = {timing.key: timing for timing in published_timings()}
    clock = _Clock(own, published, trials or {})
    of_group: dict[str, list[Cell]] = defaultdict(list)
    for cell in todo:
        of_group[cell.group.key].append(cell)
    total, variance, guessed = 0.0, 0.0, 0
    guesses: list[Cell] = []
    for cells in of_group.values():
        seconds, basis = clock.seconds(cells[0])
        seconds = len(cells) * (seconds + START_S)
        total += seconds
        variance += seconds**2 * math.expm1(SPREAD[basis] ** 2)
        if basis in ("method", "nothing"):
            guessed += len(cells)
            guesses.append(cells[0])
    wide = math.sqrt(math.log1p(variance / total**2) + MACHINE_SPREAD**2) if total else 0.0
    factor = math.exp(INSIDE * wide)
    return Forecast(total, total / factor, total * factor, guessed, guesses)


class _Clock:
    """Estimates of one cell, from the best that is known of it.

    Args:
        own, published, trials: by the key of the group; `own` was measured on this machine.
    """

    def __init__(self, own: Mapping[str, Timing], published: Mapping[str, Timing], trials: Mapping[str, float]) -> None:
        self._own, self._published, self._trials = own, published, trials
        self._pairs: dict[tuple[str, str], list[Timing]] = defaultdict(list)
        self._model = TimeModel(list(published.values()))
        self._pace = self._pace_of_machine()
        for timing in {**published, **own}.values():
            self._pairs[timing.pair].append(timing)

    def _pace_of_machine(self) -> float:
        """How many times the published seconds cells take here; 1 while too few are measured."""
        known = [one.seconds / self._of_model(one) for one in self._own.values() if self._model.knows(one.method)]
        return statistics.median(known) if len(known) >= ENOUGH else 1.0

    def _of_model(self, timing: Timing) -> float:
        return self._model.seconds(timing.method, timing.dataset, timing.numbers)

    def seconds(self, cell: Cell) -> tuple[float, Basis]:
        """Seconds of `cell`, and what they rest on."""
        of, key = cell.group.identity, cell.group.key
        if key in self._trials:
            return self._trials[key], "trial"
        if key in self._own:
            return self._own[key].seconds, "group"
        if key in self._published:
            return self._published[key].seconds * self._pace, "group"
        numbers = facts_of(of.config, cell.group.data, of.split)
        plain = self._model.seconds(of.method, of.dataset, numbers)
        pair = self._pairs.get((of.method, of.dataset), [])
        if pair:
            logs = [math.log(self._here(one) / self._of_model(one)) for one in pair]
            return plain * math.exp(statistics.fmean(logs)), "pair"
        return plain * self._pace, "method" if self._model.knows(of.method) else "nothing"

    def _here(self, timing: Timing) -> float:
        """Its seconds on this machine."""
        return timing.seconds if timing.key in self._own else timing.seconds * self._pace
