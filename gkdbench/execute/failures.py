"""Failed cells, explained: where in the method's own source, what it printed, how to run the cell again."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gkdbench.execute.cell import Cell
from gkdbench.printable import printable
from gkdbench.records.files import remove_if_empty, write_atomically
from gkdbench.records.schema import Row
from gkdbench.records.store import Store
from gkdbench.safe_files import safe_name

LOG_BYTES = 2**20
"""A log keeps the last so many bytes of what a cell printed."""
PRINTED = "printed.log"
"""File in a cell's folder: what its process printed."""
TAIL_BYTES, TAIL_LINES = 16 * 1024, 20
"""A row of a cell that was killed quotes no more of its log."""

_FRAME = re.compile(r'^ *File "(?P<file>[^"\n]+)", line (?P<line>\d+),? in (?P<function>\S+)$', re.MULTILINE)
_NEXT_TRACEBACK = "Traceback (most recent call last)"
_CRASH = "(most recent call first)"
"""In what `faulthandler` prints when the interpreter itself crashes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of source that a traceback names."""

    file: Path
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line} in {self.function}"


@dataclass
class Failure:
    """One failure, of one cell or of many in the same way.

    Args:
        cell, row: the first of them.
        where: the method's last own frame; None without a traceback.
        log: what that cell printed, and its traceback; None when it did not run.
        count: cells that failed so.
    """

    cell: Cell
    row: Row
    where: Frame | None
    log: Path | None
    count: int = field(default=1)

    @property
    def error(self) -> str:
        """Its first line: ``KeyError: 'oops'``."""
        return first_line(self.row)

    def lines(self, more: str = "", suite: str = "") -> list[str]:
        """For a terminal.

        Args:
            more: further options that the command to run again needs.
            suite: the suite as it was given; a record names its file without the folder.
        """
        command = self.row.command
        if suite:
            name = Path(suite).name
            command = command.replace(f"gkdbench run {name} ", f"gkdbench run {shlex.quote(suite)} ", 1)
        more_cells = self.count - 1
        others = f" (and {more_cells} more in the same way)" if more_cells else ""
        found = [f"failed: {self.cell}{others}: {self.row.status}: {self.error}"]
        if self.where is not None:
            found.append(f"  where: {self.where}")
        if self.log is not None:
            found.append(f"  log:   {shown(self.log)} (what it printed, and the traceback)")
        return [printable(line) for line in [*found, f"  again: {command}{more}"]]


def failures_of(failed: Iterable[tuple[Cell, Row]], store: Store) -> list[Failure]:
    """Failed cells, those of one method that failed in the same line with the same error as one `Failure`."""
    found: dict[tuple[object, ...], Failure] = {}
    for cell, row in failed:
        where, log = own_frame(cell, row.traceback), log_path(store, cell)
        method = cell.group.identity.method
        # A skipped cell's reason ends with its own teacher's command.
        alike = (method, row.status, row.phase, str(where), first_line(row).partition("; repeat")[0])
        if alike in found:
            found[alike].count += 1
        else:
            found[alike] = Failure(cell, row, where, log if log.exists() else None)
    return list(found.values())


def first_line(row: Row) -> str:
    """The first line of a row's reason."""
    return (row.reason or "no reason given").splitlines()[0]


def own_frame(cell: Cell, traceback: str | None) -> Frame | None:
    """The last frame of `traceback` that belongs to the cell's method; else the last of all; None without any.

    A method owns the files of its distribution's package, or its one file; a built-in one those of
    ``gkdbench/methods``. What it inherits from another method counts when no frame of its own is there.
    """
    last = (traceback or "").rpartition(_NEXT_TRACEBACK)[2]  # of chained exceptions the last was not caught
    frames = [Frame(Path(m["file"]), int(m["line"]), m["function"]) for m in _FRAME.finditer(last)]
    if _CRASH in last:
        frames.reverse()
    for cls in type(cell.group.method).__mro__:
        roots = _sources(cls) if hasattr(cls, "fit") else []
        own = [frame for frame in frames if any(frame.file.resolve().is_relative_to(root) for root in roots)]
        if own:
            return own[-1]
    return frames[-1] if frames else None


def _sources(cls: type) -> list[Path]:
    """Folders or the file that hold the source of the package of `cls`."""
    top = cls.__module__.partition(".")[0]
    package = importlib.import_module("gkdbench.methods" if top == "gkdbench" else top)
    folders = [Path(folder).resolve() for folder in getattr(package, "__path__", ())]
    try:
        return folders or [Path(inspect.getfile(cls)).resolve()]
    except (OSError, TypeError):  # made in an interactive session
        return []


def shown(path: Path) -> str:
    """`path` relative to the current folder if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)


def log_path(store: Store, cell: Cell) -> Path:
    """Where the log of a failed cell is kept. The folder is hidden: nothing in it is taken for a record."""
    of = cell.group.identity
    name = f"{safe_name(of.method, 'method')}-{of.key[:12]}-{cell.index}-{cell.seed}.log"
    return store.place(Path(".logs", name))


def keep_log(store: Store, cell: Cell, row: Row, printed_log: Path) -> None:
    """Store what a failed cell printed, its traceback after it; an earlier log of the cell is replaced.

    Args:
        printed_log: what the cell printed; of a long one the end is kept.

    Raises:
        StorageError: the output folder refused.
    """
    printed = _end_of(printed_log, LOG_BYTES)
    head = f"{cell}\n{row.command}\n--- printed (stdout and stderr) ---\n"
    tail = f"--- {row.status} in phase {row.phase} ---\n{row.traceback or row.reason or ''}\n"
    if printed and not printed.endswith(b"\n"):
        printed += b"\n"
    write_atomically(log_path(store, cell), head.encode() + (printed or b"(nothing)\n") + tail.encode())


def drop_log(store: Store, cell: Cell) -> None:
    """Remove the log of a cell that has succeeded now, and the folder when it is empty."""
    path = log_path(store, cell)
    path.unlink(missing_ok=True)
    remove_if_empty(path.parent)


def tail_of(log: Path) -> str:
    """The last lines of a log."""
    return b"\n".join(_end_of(log, TAIL_BYTES).splitlines()[-TAIL_LINES:]).decode(errors="replace")


def _end_of(log: Path, size: int) -> bytes:
    """The last `size` bytes of a file; none of one that cannot be read."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - size))
            return stream.read(size)
    except OSError:
        return b""
