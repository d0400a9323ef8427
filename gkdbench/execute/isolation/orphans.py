"""Ends what a cell leaves running: its process group, and processes that have left it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_group(pid: int) -> None:
    """SIGKILL to the process `pid` and to its group, which it leads."""
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


def kill_orphans(cells: Collection[int]) -> int:
    """SIGKILL to the children of this process that are no live cell and belong to the session of none.

    Args:
        cells: process ids of live cells, each the leader of its session.

    Returns:
        How many were found. Their own children are adopted as they end: call it again until none is found.
    """
    found = 0
    for pid, session in _children():
        if pid not in cells and session not in cells:
            found += 1
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return found


def kill_marked(mark: str, seconds: float = 5.0) -> None:
    """SIGKILL to every process that was started with `mark` in its environment, until none is left (Linux).

    For what the children of a dead worker left: they have no parent any more that could find them.
    """
    deadline = time.monotonic() + seconds
    while found := [pid for pid in _processes() if _is_marked(pid, mark.encode())]:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _is_marked(pid: int, mark: bytes) -> bool:
    """Whether `mark` is in the environment of `pid`; a zombie has none."""
    try:
        return pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _children() -> Iterator[tuple[int, int]]:
    """(process, session) of the children of this process that have not ended; none where /proc is missing."""
    me = os.getpid()
    try:
        candidates = [int(pid) for pid in Path(f"/proc/self/task/{me}/children").read_text().split()]
    except OSError:  # a kernel without this list
        candidates = _processes()
    for pid in candidates:
        with suppress(OSError):
            state, parent, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            if int(parent) == me and state not in "ZX":
                yield pid, int(session)


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []
