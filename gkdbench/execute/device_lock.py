"""Who uses the processors: any number of training runs at once, or one measurement alone (``flock``, host-wide)."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "GKDBENCH_LOCKS"
"""Environment variable with the folder of lock files; default: the folder of temporary files."""


@contextmanager
def device_use(device: str, *, alone: bool, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the device, shared with other training runs or `alone`; wait for those that are in the way.

    The kernel releases the lock when this process ends, however it ends. Where the lock file cannot be made, nothing is
    locked.

    Args:
        device: ``cpu`` or ``cuda:i``; each has a lock of its own.
        alone: whether this is a measurement, which nothing may run beside.
        tell: called with one line when this process has to wait.
    """
    descriptor = _open(device)
    if descriptor is None:
        yield
        return
    try:
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = "other runs use" if alone else "a measurement has"
            tell(f"{busy} {device} on this machine; waiting for the end of that (Ctrl-C gives up)")
            fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _open(device: str) -> int | None:
    folder = Path(os.environ.get(FOLDER) or tempfile.gettempdir())
    path = folder / f"gkdbench-{os.getuid()}-{device.replace(':', '')}.lock"
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
