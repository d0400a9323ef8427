"""Claims: a cell is computed by whoever creates its lock file first. Dead owners' locks are broken, live ones never."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gkdbench.records.files import StorageError, host, is_alive, process_start

HEARTBEAT_S = 30.0
SILENT_AFTER_S = 600.0
"""A lock of another host whose heartbeat is older than this is stale."""
UNWRITTEN_AFTER_S = 2.0
"""A lock without content is stale after this long: its creator died between creating and writing it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock; `token` tells two locks of one process apart."""

    pid: int
    start: str
    host: str
    hostname: str
    token: str

    @classmethod
    def me(cls) -> Owner:
        pid = os.getpid()
        return cls(pid, process_start(pid) or "", host(), socket.gethostname(), secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.hostname}"


class Claims:
    """Lock files of one process.

    Args:
        guard: file that serialises the breaking of stale locks (``flock``, released by the kernel on death).
    """

    def __init__(self, guard: Path) -> None:
        self._guard, self._held = guard, dict[Path, str]()
        self._stop: threading.Event | None = None

    def take(self, path: Path) -> bool:
        """Create the lock `path`; False when a living process holds it."""
        if self._create(path):
            return True
        if not _is_stale(path):
            return False
        with guarded(self._guard):
            # Looked at again under the guard: another process may have broken and taken it in between.
            if not _is_stale(path):
                return False
            path.unlink(missing_ok=True)
            return self._create(path)

    def _create(self, path: Path) -> bool:
        owner = Owner.me()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the empty folder was removed in between
            return self._create(path)
        except OSError as error:
            raise StorageError(path, error) from error
        try:
            os.write(descriptor, json.dumps(asdict(owner)).encode())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StorageError(path, error) from error
        finally:
            os.close(descriptor)
        self._held[path] = owner.token
        self._start_heart()
        return True

    def release(self, path: Path) -> None:
        """Remove the lock, if it is still ours."""
        token = self._held.pop(path, None)
        owner = owner_of(path)
        if owner is not None and owner.token == token:
            path.unlink(missing_ok=True)

    def release_all(self) -> None:
        """Remove every lock of this object and stop its heartbeat."""
        for path in list(self._held):
            self.release(path)
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def _start_heart(self) -> None:
        if self._stop is None:
            self._stop = threading.Event()
            threading.Thread(target=self._beat, args=(self._stop,), daemon=True, name="gkdbench-heartbeat").start()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_S):
            for path in list(self._held):
                try:
                    os.utime(path)
                except OSError:
                    continue  # released meanwhile


def owner_of(path: Path) -> Owner | None:
    """Who holds the lock; None when there is none, or it has no content yet."""
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_stale(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    owner = owner_of(path)
    if owner is None:
        return age > UNWRITTEN_AFTER_S
    if owner.host == host():
        return not is_alive(owner.pid, owner.start)
    return age > SILENT_AFTER_S


@contextmanager
def guarded(guard: Path) -> Iterator[None]:
    """Hold an exclusive ``flock`` on `guard`."""
    try:
        guard.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(guard, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StorageError(guard, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
