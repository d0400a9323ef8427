"""A Monitor that times epochs: from the end of one report to the beginning of the next, a reference's epoch between."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gkdbench.measure.cost.process_memory import PeakMemory
from gkdbench.protocol.monitor import EpochResult, Monitor
from gkdbench.protocol.predictor import Predictor

LEAST_EPOCHS = 4
"""Timed epochs of the last stage before the budget can end it; the first one, which warms up, is not timed."""


@dataclass
class EpochTimes:
    """What was timed of one training.

    Attributes:
        ours, theirs: seconds of an epoch of the stage in which epochs can be selected, and of the reference's epoch
            that followed; sample i of both belong together.
        earlier: seconds of an epoch before that stage.
        setup_s: from the start to the first report, less one epoch.
        peak_bytes: highest memory during an epoch, above what was in use before ``fit``.
    """

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    earlier: list[float] = field(default_factory=list)
    setup_s: float = 0.0
    peak_bytes: int | None = None
    terms: set[str] = field(default_factory=set)


class EpochTimer(Monitor):
    """See the module. What the Monitor itself does (validation, the state's copy) is in none of the times.

    Call `begin` after making it; the other arguments are those of `Monitor`.
    """

    def begin(
        self,
        reference: Callable[[], object],
        *,
        now: Callable[[], float],
        wait: Callable[[], None],
        memory: PeakMemory,
        budget_s: float,
    ) -> None:
        """Start the clock, right before ``fit``.

        Args:
            reference: one epoch of the reference.
            now: seconds.
            wait: returns when the device is idle.
            budget_s: when so many seconds of timed epochs are spent, the stage is stopped.
        """
        self.times = EpochTimes()
        self._reference, self._now, self._wait, self._memory = reference, now, wait, memory
        self._budget_s, self._first = budget_s, True
        self._last_epoch = 0
        reference()
        wait()
        memory.reset()
        self._began = self._resumed = now()

    def report(
        self,
        epoch: int,
        predictors: Mapping[str, Predictor],
        *,
        terms: Mapping[str, float] | None = None,
        selectable: bool = True,
        store: Collection[str] = (),
    ) -> EpochResult:
        """As `Monitor.report`; the stage is stopped when its budget is spent."""
        self._wait()
        took = (self._now() - self._resumed) / max(epoch - self._last_epoch, 1)
        peak = self._memory.peak()
        if peak is not None:
            self.times.peak_bytes = max(self.times.peak_bytes or 0, peak)
        self.times.terms.update(name for name, value in (terms or {}).items() if value)
        found = super().report(epoch, predictors, terms=terms, selectable=selectable, store=store)
        begin = self._now()
        self._reference()
        self._wait()
        theirs = self._now() - begin
        if self._first:
            self.times.setup_s = took * max(epoch - self._last_epoch, 1)  # less one epoch: see `finish`
            self._first = False
        elif selectable:
            self.times.ours.append(took)
            self.times.theirs.append(theirs)
        else:
            self.times.earlier.append(took)
        self._last_epoch = epoch
        spent = sum(self.times.ours) > self._budget_s and len(self.times.ours) >= LEAST_EPOCHS
        self._memory.reset()
        self._resumed = self._now()
        return replace(found, stop=found.stop or spent)

    def finish(self) -> EpochTimes:
        """The times; the first epoch is no longer in `setup_s`."""
        per_epoch = self.times.earlier or self.times.ours
        if per_epoch:
            self.times.setup_s = max(0.0, self.times.setup_s - statistics.median(per_epoch))
        return self.times


def stage_lengths(config: Mapping[str, Any], epochs: int) -> dict[str, int]:
    """Overrides that shorten a method's training to `epochs`, its earlier stages to two, whatever else it is set to."""
    short: dict[str, int] = {}
    for name, length in (("epochs", epochs), ("pretrain", 2), ("warmup", 2)):
        if isinstance(config.get(name), int):
            short[name] = min(config[name], length)
    return short
