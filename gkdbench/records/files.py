"""Files that are whole or absent: written under a temporary name that tells its owner, then renamed."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from gkdbench.errors import UserError

TEMPORARY = ".tmp~"
ABANDONED_AFTER_S = 3600.0
"""Age at which a temporary file of another host counts as left behind."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_counter = itertools.count()


class StorageError(UserError):
    """The output folder refused a write: full, read-only, or not ours."""

    def __init__(self, path: Path, error: OSError) -> None:
        # numpy reports a short write without an error number ("3478 requested and 234 written").
        if error.errno in _FULL or error.errno is None:
            mend = "free some space (or raise the file-size limit) and give the same command again"
        else:
            mend = "make it writable, or choose another folder with --out"
        cause = error.strerror or f"short write, {error}"
        super().__init__(f"cannot write {path}: {cause}; finished cells are kept; {mend}")


@cache
def host() -> str:
    """12 hex digits for "process ids mean the same here": host name, boot and process-id namespace."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # not Linux: the host name has to do
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def process_start(pid: int) -> str | None:
    """When process `pid` started, in clock ticks since boot; None when it is dead or a zombie.

    A pid alone is reused; the pair (pid, start) is not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    return None if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def is_alive(pid: int, start: str) -> bool:
    """Whether the process that started then still runs on this host."""
    return process_start(pid) == start


def owned_name() -> str:
    """A name, unique on all hosts, that tells which process made it: ``host~pid~start~number``."""
    return f"{host()}~{os.getpid()}~{process_start(os.getpid())}~{next(_counter)}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old content or the new one, never a part.

    Raises:
        StorageError: the folder refused (full, read-only, no permission).
    """
    # Neither the end of the name nor its length come from `path`: no pattern for records or cells matches it.
    partial = path.with_name(f"{TEMPORARY}{owned_name()}")
    try:
        for attempt in itertools.count():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = partial.open("wb")
                break
            except FileNotFoundError:  # the folder was empty and another process has just removed it
                if attempt == 5:
                    raise
        with stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(path, error) from error


def is_abandoned(temporary: Path) -> bool:
    """Whether the maker of a file or folder called ``<word>~<owned_name()>`` is dead (this host), or silent for an
    hour (another one)."""
    parts = temporary.name.split("~")
    if len(parts) < 5 or not parts[2].isdigit():
        return False
    if parts[1] == host():
        return not is_alive(int(parts[2]), parts[3])
    try:
        return time.time() - temporary.stat().st_mtime > ABANDONED_AFTER_S
    except OSError:
        return False


def files_below(folder: Path, suffix: str = "", *, hidden: bool = False) -> Iterator[Path]:
    """Files below a folder that other processes may be changing, but for temporary ones; hidden folders are entered
    only when asked for, links to folders never.

    A folder that is removed meanwhile counts as empty (``Path.glob`` would raise).
    """
    for path in _walk(folder, hidden):
        if path.name.endswith(suffix) and not path.name.startswith(TEMPORARY):
            yield path


def temporaries_below(folder: Path) -> Iterator[Path]:
    """What `write_atomically` of a process that died left below `folder`, of this version or an earlier one."""
    return (path for path in _walk(folder, hidden=True) if _TEMPORARY_NAME.fullmatch(path.name))


_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{12}~\d+~\w+~\d+(~.+)?")


def _walk(folder: Path, hidden: bool) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names)


def remove_if_empty(folder: Path) -> None:
    """Remove `folder` when nothing is in it; another process may be using it."""
    try:
        folder.rmdir()
    except OSError:
        return  # not empty, or not a folder
