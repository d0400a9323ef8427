"""How far long work is: one line that is written over on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

QUIET_S = 5.0
"""Work that is shorter prints nothing into a log."""
LOG_S = 30.0
"""Time between two lines in a log."""


class WorkMeter:
    """Counts steps of the same kind and says how many are done, and about how long the rest takes.

    Args:
        total: how many steps there will be; 0 as long as nobody knows.
        what: ``"records checked"``: follows the numbers.
        stream: standard error unless given; a terminal gets one line that is written over.
        clock: seconds from any beginning.
    """

    def __init__(
        self, total: int, what: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._what, self._clock = total, what, clock
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._done = 0
        self._began = clock()
        self._told = self._began + QUIET_S - LOG_S
        self._width = 0

    def step(self, name: str = "") -> None:
        """One more step is done, the one called `name`."""
        self.step_of(self._done + 1, self._total, name)

    def step_of(self, done: int, total: int, name: str = "") -> None:
        """`done` of `total` steps are done; `name` is the last one, or the one under way."""
        self._done, self._total = done, total
        now = self._clock()
        if not self._live and now - self._told < LOG_S:
            return
        self._told = now
        text = self._text(now - self._began, name)
        if self._live:
            print(f"\r{text:{self._width}}", end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """Take the line on the terminal away."""
        if self._live and self._width:
            print(f"\r{'':{self._width}}\r", end="", file=self._stream, flush=True)
            self._width = 0

    def _text(self, took: float, name: str) -> str:
        of = f" of {self._total}" if self._total else ""
        left = ""
        if self._total > self._done > 0:
            left = f", {duration(took / self._done * (self._total - self._done))} left"
        text = f"[{self._done}{of} {self._what}{left}]"
        return f"{text} {name}"[:79] if name else text


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
