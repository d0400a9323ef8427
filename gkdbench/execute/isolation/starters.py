"""The two ways to start the process of a cell: a fork of the worker, or a new interpreter."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import Literal, NoReturn

from gkdbench.errors import UserError
from gkdbench.execute.cell_process import run_cell
from gkdbench.execute.job import Orders

Starter = Literal["fork", "spawn"]
STARTER = "GKDBENCH_STARTER"
"""Environment variable that chooses the starter of cells on the CPU: ``fork`` or ``spawn``."""
_HIGH = 500


def starter_for(device: str) -> Starter:
    """How cells on `device` are started: by a fork on Linux's CPUs, by a new interpreter elsewhere.

    Raises:
        UserError: ``GKDBENCH_STARTER`` names no starter.
    """
    wanted = os.environ.get(STARTER) or ("fork" if sys.platform == "linux" else "spawn")
    if wanted not in ("fork", "spawn"):
        raise UserError(f"{STARTER}: expected fork or spawn, got {wanted!r}; try to unset it")
    return "fork" if wanted == "fork" and device == "cpu" else "spawn"


def unnamed_file() -> int:
    """A descriptor, closed on exec, of a file that has no name; its number is beyond those that programs try."""
    if hasattr(os, "memfd_create"):
        low = os.memfd_create("answer")
    else:
        with tempfile.TemporaryFile() as file:
            low = os.dup(file.fileno())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    high = _HIGH if limit == resource.RLIM_INFINITY else min(_HIGH, limit // 2)
    found = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, high)
    os.close(low)
    return found


def fork_cell(orders: Orders, log: str) -> int:
    """Start the cell as a fork of this process, which has one thread and keeps what it has imported.

    Args:
        log: file that takes what the cell prints.

    Returns:
        The process id; the process leads a session of its own.
    """
    gc.freeze()  # the collector of a child must not touch, and thereby copy, the pages that it shares
    pid = os.fork()
    if pid == 0:
        _become_cell(orders, log)
    return pid


def _become_cell(orders: Orders, log: str) -> NoReturn:
    """What a fork of the worker does: nothing of the worker's files and handlers stays."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.closerange(3, orders.answer)
        os.closerange(orders.answer + 1, 65536)
        run_cell(orders)
    except BaseException:  # never back into the worker's loop
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(1)


def spawn_cell(orders: Orders, log: str) -> int:
    """Start the cell as a new interpreter; as `fork_cell`."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gkdbench.execute.cell_process"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[orders.answer],
        )
    assert process.stdin is not None  # a pipe was requested
    with suppress(OSError):  # it has just died, which the worker notices
        process.stdin.write(orders.line())
    with suppress(OSError):
        process.stdin.close()
    process.returncode = 0  # the worker waits for it: this object must not
    return process.pid
