"""Claims: a cell is computed by whoever creates its lock file first. Dead owners' locks are broken, live ones never."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gkdbench.records.files import StorageError, host, is_alive, process_start
from gkdbench.safe_files import read_json

HEARTBEAT_S = 30.0
SILENT_AFTER_S = 600.0
"""A lock of another host whose heartbeat is older than this is stale."""
UNWRITTEN_AFTER_S = 2.0
"""A lock without content is stale after this long: its creator died between creating and writing it."""
_LOCK_BYTES = 4096


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
        put_aside: takes away what stands in the place of a lock and is no file; default: it stays, and the cell waits.
    """

    def __init__(self, guard: Path, put_aside: Callable[[Path], None] | None = None) -> None:
        self._guard, self._held, self._put_aside = guard, dict[Path, str](), put_aside
        self._seen = dict[Path, tuple[int, float]]()  # lock dated in the future -> (its time, since when we see it)
        self._stop: threading.Event | None = None

    def take(self, path: Path) -> bool:
        """Create the lock `path`; False when a living process holds it."""
        if self._create(path):
            return True
        if not self._is_stale(path):
            return False
        with guarded(self._guard):
            # Looked at again under the guard: another process may have broken and taken it in between.
            if not self._is_stale(path):
                return False
            if path.is_file() or path.is_symlink() or not path.exists():
                path.unlink(missing_ok=True)
            elif self._put_aside is not None:
                self._put_aside(path)
            return self._create(path)

    def _is_stale(self, path: Path) -> bool:
        try:
            written = path.lstat().st_mtime_ns
        except FileNotFoundError:
            return True
        age = time.time() - written / 1e9
        if age < -HEARTBEAT_S:
            # No clock of ours wrote this date: what counts is whether a heartbeat renews it while we look.
            before, since = self._seen.get(path, (None, 0.0))
            if before != written:
                self._seen[path] = (written, time.monotonic())
            age = 0.0 if before != written else time.monotonic() - since
            silent, unwritten = 1.5 * HEARTBEAT_S, UNWRITTEN_AFTER_S
        else:
            silent, unwritten = SILENT_AFTER_S, UNWRITTEN_AFTER_S
        owner = owner_of(path)
        if owner is None:
            return age > unwritten
        if owner.host == host():
            return not is_alive(owner.pid, owner.start)
        return age > silent

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
    """Who holds the lock; None when there is none, or it has no content yet, or another one than a lock has."""
    try:
        owner = Owner(**read_json(path, _LOCK_BYTES, links=False))
    except (OSError, ValueError, TypeError):
        return None
    texts = (owner.start, owner.host, owner.hostname, owner.token)
    whole = (
        type(owner.pid) is int and owner.pid > 0 and all(isinstance(text, str) and text.isprintable() for text in texts)
    )
    return owner if whole else None


WRITER_WAIT_S = 10.0
"""How long a reader waits for a run that is writing a record and its side-car: a stopped process may hold the guard."""


@contextmanager
def undisturbed(record: Path) -> Iterator[None]:
    """No run on this file system changes the record in this file, or its side-car, meanwhile; nothing is created."""
    guards = (folder / ".cells" / ".guard" for folder in list(record.absolute().parents)[:4])
    guard = next((path for path in guards if path.is_file()), None)
    if guard is None:
        yield
        return
    try:
        descriptor = os.open(guard, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        until = time.monotonic() + WRITER_WAIT_S
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def guarded(guard: Path) -> Iterator[None]:
    """Hold an exclusive ``flock`` on `guard`."""
    try:
        guard.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(guard, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(guard, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
