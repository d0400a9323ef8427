"""Progress of a run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from gkdbench.execute.cell import Cell
from gkdbench.execute.failures import own_frame
from gkdbench.execute.plan import Plan
from gkdbench.meter import LOG_S, duration
from gkdbench.printable import printable
from gkdbench.records.schema import Row


class Progress(Protocol):
    """Events of a run, in this order: planned, (started, finished | retried)*, ended. `note`, `waiting` at any time."""

    def planned(self, plan: Plan, jobs: int) -> None: ...

    def started(self, cell: Cell) -> None: ...

    def finished(self, cell: Cell, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def waiting(self) -> None: ...

    def ended(self) -> None: ...


class Silent:
    """Prints nothing."""

    def planned(self, plan: Plan, jobs: int) -> None:
        """Nothing."""

    def started(self, cell: Cell) -> None:
        """Nothing."""

    def finished(self, cell: Cell, row: Row) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def waiting(self) -> None:
        """Nothing."""

    def ended(self) -> None:
        """Nothing."""


class Lines:
    """One plain line an event, and one now and then while cells take long: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._done = self._all = 0
        self._began = self._told = clock()
        self._running: dict[str, tuple[str, float]] = {}

    def planned(self, plan: Plan, jobs: int) -> None:
        # planned once more when tuning has chosen the settings of the cells that waited for it
        self._done, self._all, self._began = 0, len(plan.todo), self._clock()
        self._running.clear()
        for line in plan.lines():
            self.note(line)

    def started(self, cell: Cell) -> None:
        self._running[cell.key] = (f"{cell.group.label} on {cell.group.identity.dataset}, s{cell.seed}", self._clock())

    def finished(self, cell: Cell, row: Row) -> None:
        self._running.pop(cell.key, None)
        self._done += 1
        left = (self._clock() - self._began) / self._done * (self._all - self._done)
        self.note(f"[{self._done}/{self._all}, {duration(left)} left] {cell}: {describe(row)}{place(cell, row)}")

    def note(self, text: str) -> None:
        self._told = self._clock()
        print(printable(text), file=self._stream, flush=True)

    def waiting(self) -> None:
        now = self._clock()
        if self._running and now - self._told >= LOG_S:
            under_way = ", ".join(f"{what} for {duration(now - since)}" for what, since in self._running.values())
            self.note(f"[{self._done}/{self._all}] running: {under_way}")

    def ended(self) -> None:
        """Nothing is left to close."""


class Live:
    """A bar with the cells under way and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[under_way]}"),
            console=Console(stderr=True),
            speed_estimate_period=600,
        )
        self._running: dict[str, str] = {}
        self._noted: set[tuple[str, str]] = set()  # failures are printed once, and counted at the end of the run

    def planned(self, plan: Plan, jobs: int) -> None:
        for line in plan.lines():
            self._bar.console.print(printable(line), markup=False, highlight=False)
        self._task = self._bar.add_task(plan.suite.full_name, total=len(plan.todo), under_way="")
        self._bar.start()

    def started(self, cell: Cell) -> None:
        self._running[cell.key] = f"{cell.group.label} {cell.group.identity.dataset} s{cell.seed}"
        self._show()

    def finished(self, cell: Cell, row: Row) -> None:
        self._running.pop(cell.key, None)
        if row.status != "ok":
            what = f"{describe(row)}{place(cell, row)}"
            if (cell.group.label, what) not in self._noted:
                self.note(f"{cell}: {what}")
            self._noted.add((cell.group.label, what))
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, under_way=" | ".join(self._running.values()))

    def note(self, text: str) -> None:
        self._bar.console.print(printable(text), markup=False, highlight=False)

    def waiting(self) -> None:
        """The bar counts the time by itself."""

    def ended(self) -> None:
        self._bar.stop()


def progress_for(stream: TextIO | None = None) -> Progress:
    """Live on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    return Live() if stream is sys.stderr and stream.isatty() else Lines(stream)


def describe(row: Row) -> str:
    """A row in a few words: its scores in percent, or what went wrong."""
    if row.status != "ok":
        return f"{row.status}: {(row.reason or '').splitlines()[0] if row.reason else 'no reason given'}"
    scores = [f"{column} {score.value:.1%}" for column, score in row.models[-1].scores.items()]
    return ", ".join(scores) + (f" in {row.train_s:.1f} s" if row.train_s is not None else "")


def place(cell: Cell, row: Row) -> str:
    """`` at soft_mlp.py:41 in fit`` of a row that failed in its method's source; else nothing."""
    where = own_frame(cell, row.traceback) if row.status != "ok" else None
    return "" if where is None else f" at {where}"
