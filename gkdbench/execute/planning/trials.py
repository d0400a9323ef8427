"""Seconds of a cell from a trial: a few epochs of it in this process, its teachers for fewer; nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gkdbench.execute.api import job_count
from gkdbench.execute.cell import Cell
from gkdbench.execute.plan import Plan, with_trials
from gkdbench.execute.planning.estimates import EPOCHS, TimeModel, published_timings
from gkdbench.execute.planning.facts import facts_of
from gkdbench.execute.profiling import short_runs
from gkdbench.measure.profiles.epochs import EndedSoon
from gkdbench.protocol.monitor import EpochResult, Monitor
from gkdbench.protocol.predictor import Predictor
from gkdbench.records.store import Store

REPORTS = 4
"""The first pays for what is computed once, the others say what an epoch takes."""


class _Timed:
    """A Monitor that notes when each report ended, and of which epoch it was."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.ends: list[tuple[int, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._monitor, name)

    def report(self, epoch: int, predictors: Mapping[str, Predictor], **more: Any) -> EpochResult:
        """As `Monitor.report`."""
        result = self._monitor.report(epoch, predictors, **more)
        self.ends.append((epoch, time.process_time()))
        return result


def tried(plan: Plan, store: Store, *, data: Path | None, device: str, threads: int | None, jobs: int | None) -> Plan:
    """`plan`, its guesses replaced by trials; other arguments as of `gkdbench.execute.api.plan_suite`."""
    trials = trial_seconds(plan.guesses, data=data, device=device, threads=threads or plan.suite.threads)
    return with_trials(plan, store, trials, job_count(jobs, threads))


def trial_seconds(cells: Iterable[Cell], *, data: Path | None, device: str, threads: int) -> dict[str, float]:
    """Key of each cell's group -> processor seconds of such a cell, from `REPORTS` reports of it.

    Epochs are extrapolated to the number that patience leaves such methods by published rows, at most the cell's own.

    Args:
        cells: one of each group.
        data: folder of raw files; None: ``$GKDBENCH_DATA``.
        device: as ``--device`` takes it.

    Raises:
        UserError: a teacher failed.
    """
    epochs_of = TimeModel(published_timings(), of=EPOCHS)
    found = {}
    for cell in cells:
        of = cell.group.identity
        with short_runs(cell, data=data, device=device, threads=threads) as runs:
            context = runs.context(cell)
            watch: Any = _Timed(context.monitor)
            began = time.process_time()
            EndedSoon(cell.group.method, REPORTS).fit(runs.given.view, replace(context, monitor=watch))
            ended = time.process_time()
        if not watch.ends:
            found[cell.group.key] = ended - began
            continue
        (first, start), (last, stop) = watch.ends[0], watch.ends[-1]
        numbers = facts_of(of.config, cell.group.data, of.split)
        most = of.config.get("epochs") or last
        epochs = max(last, min(most, epochs_of.seconds(of.method, of.dataset, numbers)))
        an_epoch = (stop - start) / (last - first) if last > first else 0.0
        found[cell.group.key] = start - began + an_epoch * (epochs - first)
    return found
