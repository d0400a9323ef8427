"""How the process of a cell ended, as the pool tells the run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkdbench.execute.failures import tail_of


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a cell was ended by a signal, or its worker ended.

    Args:
        how: ``"SIGKILL"``, ``"exit status 3"``.
        ready: whether the worker had started up; False: it could not even begin.
        log: the last lines that the cell (or a worker that could not begin) printed.
    """

    how: str
    ready: bool
    log: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The process of a cell ended by itself and left no outcome.

    Args:
        how: ``"exit status 0"``.
        log: the last lines that it printed.
    """

    how: str
    log: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """The cell was killed because the time limit and the grace had passed."""


WorkerReply = dict[str, Any] | Died | Ended | Overdue
"""An answer of `gkdbench.execute.processes.cell_process.serve`, or what happened in its place."""


def reply_of(status: int, answer: dict[str, Any] | None, log: Path) -> WorkerReply:
    """What the end of a process means.

    Args:
        status: its exit status, or minus the signal that ended it.
        answer: None where it left none.
        log: what it printed.
    """
    if answer is not None and status == 0:
        return answer
    if status < 0:
        return Died(how_ended(status), True, tail_of(log))
    return Ended(how_ended(status), tail_of(log))


def how_ended(status: int) -> str:
    """``"SIGKILL"``, ``"signal 40"`` for one without a name, or ``"exit status 3"``."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
