"""From what a worker left behind to a row: scored here, in the process that holds the test labels."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import traceback as tb
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gkdbench.execute.cell import Cell
from gkdbench.execute.prefetch import PreparedData
from gkdbench.execute.suite import Suite
from gkdbench.execute.texts import shortened
from gkdbench.printable import encodable, said
from gkdbench.protocol.scoring import Arrays, score_run
from gkdbench.protocol.sweeps import with_sweeps
from gkdbench.records.claims import Owner
from gkdbench.records.schema import Row
from gkdbench.records.store import KILLED

_DISK = re.compile(r"OSError: (?:\[Errno (28|27|122)\]|\d+ requested and \d+ written)")


class DiskFull(OSError):
    """A worker could not write its predictions: the run must stop, and no method is to blame."""


def scored_row(cell: Cell, suite: Suite, ready: PreparedData, scratch: Path, sha256: str) -> tuple[Row, Arrays]:
    """The row of an answered job, and the arrays for its side-car.

    Args:
        sha256: of the outcome's file, as the cell answered.

    Raises:
        DiskFull: the worker's disk was full.
    """
    try:
        text = (scratch / "outcome.json").read_bytes()
    except OSError as error:
        return ended_row(cell, suite, ready, str(error), ""), {}
    if hashlib.sha256(text).hexdigest() != sha256:
        return ended_row(cell, suite, ready, "its outcome was changed after it was written", ""), {}
    try:
        return _row_of(cell, suite, ready, scratch, json.loads(text))
    except DiskFull:
        raise
    except Exception as error:  # whatever the method left, it costs this cell alone
        return unfit_row(cell, suite, ready, error), {}


def _row_of(
    cell: Cell, suite: Suite, ready: PreparedData, scratch: Path, outcome: dict[str, Any]
) -> tuple[Row, Arrays]:
    if outcome["status"] != "ok":
        if found := _DISK.match(outcome["reason"] or ""):
            raise DiskFull(int(found[1] or errno.ENOSPC), "no space for predictions")
        try:
            return _row(cell, suite, ready, outcome), {}
        except ValidationError as error:  # of numbers and flags that the method gave before it failed
            reason = shortened(f"{outcome['reason']}; and its outcome is not valid: {error}")
            return failed_row(cell, suite, ready, status="error", phase="fit", reason=reason), {}
    try:
        scored = score_run(ready.split_task, ready.evaluation_graphs, scratch, outcome["models"])
        scored = with_sweeps(ready.split_task, ready.evaluation_graphs, scratch, scored, cell.group.identity.sweeps)
        results = outcome | {"models": scored.models, "sweeps": scored.sweeps}
        row = _row(cell, suite, ready, results, predictions_sha256=scored.sha256)
        return row, scored.arrays
    except (ValueError, OSError, KeyError, ValidationError) as error:
        failed: dict[str, Any] = {
            "status": "error",
            "phase": "score",
            "reason": shortened(f"{type(error).__name__}: {error}"),
            "models": [],
        }
        failed |= {"traceback": shortened("".join(tb.format_exception(error))), "extra": {}, "flags": []}
        return _row(cell, suite, ready, outcome | failed), {}


def _row(cell: Cell, suite: Suite, ready: PreparedData, outcome: dict[str, Any], **more: Any) -> Row:
    return Row(
        index=cell.index,
        seed=cell.seed,
        command=command(cell, suite, failed=outcome["status"] != "ok"),
        split_sha256=ready.split_task.split.hash,
        **outcome,
        **more,
        **_where(),
    )


def failed_row(cell: Cell, suite: Suite, ready: PreparedData | None, **facts: Any) -> Row:
    """A row of a cell that gave no outcome: skipped, killed, overdue."""
    split = ready.split_task.split.hash if ready else ""
    return Row(
        index=cell.index,
        seed=cell.seed,
        command=command(cell, suite, failed=True),
        split_sha256=split,
        **facts,
        **_where(),
    )


def unfit_row(cell: Cell, suite: Suite, ready: PreparedData | None, error: Exception) -> Row:
    """The row in the place of one that cannot be made or stored: `error` says why."""
    reason = shortened(f"its row cannot be made or stored: {said(error)}")
    trace = shortened(encodable("".join(tb.format_exception(error))))
    return failed_row(cell, suite, ready, status="error", phase="score", reason=reason, traceback=trace)


def killed_row(cell: Cell, suite: Suite, ready: PreparedData, how: str, times: int, log: str) -> Row:
    """The row of a cell whose process was killed each time it was tried."""
    reason = f"its process ended by {how}, {times} times; on SIGKILL look for the kernel's out-of-memory killer"
    return failed_row(
        cell, suite, ready, status="error", phase="fit", reason=reason, traceback=log or None, flags=[KILLED]
    )


def ended_row(cell: Cell, suite: Suite, ready: PreparedData, how: str, log: str) -> Row:
    """The row of a cell whose process ended by itself and left no outcome: its method's own doing."""
    reason = f"its process ended without an outcome ({how}): the method ended it, or took its files away"
    return failed_row(cell, suite, ready, status="error", phase="fit", reason=reason, traceback=log or None)


def command(cell: Cell, suite: Suite, *, failed: bool) -> str:
    """The command that repeats exactly this cell."""
    words = f"gkdbench run {suite.command_name} --only {cell.selector()}{' --retry' if failed else ''}"
    return encodable(words)  # of a suite file whose name is not UTF-8


def _where() -> dict[str, Any]:
    me = Owner.me()
    return {"host": me.hostname, "pid": me.pid, "finished": datetime.now(UTC).isoformat(timespec="microseconds")}
