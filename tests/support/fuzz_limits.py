"""What a reader of a mutated file may do: end within its time and memory, with a value or a sentence, and touch nothing
outside its folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError

CPU_S = 10.0
MEMORY = 2**30

_folders: list[str] = []
_outside: list[str] = []
_WRITES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_RUNS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork")


def _watch(event: str, given: tuple[Any, ...]) -> None:
    """An audit hook; it stays for the life of the process and acts only inside `bounded`."""
    if not _folders:
        return
    if event in _RUNS:
        _outside.append(f"{event}{given[:1]}")
    elif event == "open":
        path, _, flags = (*given, None, None)[:3]
        if isinstance(path, str | bytes) and flags and flags & (os.O_WRONLY | os.O_RDWR):
            _note(event, path)
    elif event in _WRITES:
        _note(event, given[0])


def _note(event: str, path: Any) -> None:
    text = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
    if "__pycache__" in text or text == os.devnull:  # a reader's module is compiled where it is first imported
        return
    if text and not any(text.startswith(folder) for folder in _folders):
        _outside.append(f"{event} {text}")


sys.addaudithook(_watch)


class Exceeded(BaseException):
    """Not an Exception: no reader takes it for a fault of its file."""


def _too_long(*_: object) -> None:
    raise Exceeded(f"more than {CPU_S} s of processor time")


def bounded(read: Callable[[], object], folder: Path) -> tuple[object, str]:
    """(what `read` returned, or the UserError that it raised; "" or what was wrong with how it did so).

    Args:
        folder: where it may write.
    """
    before = _peak(reset=True)
    _folders[:], _outside[:] = [os.path.realpath(folder)], []
    earlier = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    found: object = None
    wrong = ""
    try:
        found = read()
    except UserError as error:
        found = error
        wrong = "" if len(str(error)) > 20 else f"no sentence: {error}"
    except (Exception, Exceeded) as error:
        wrong = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)
        _folders.clear()
    if _outside:
        wrong = f"outside the folder: {_outside[0]}"
    elif (taken := _peak() - before) > MEMORY:
        wrong = f"{taken // 2**20} MiB of memory"
    return found, wrong[:300]


def _peak(*, reset: bool = False) -> int:
    """Highest resident memory of this process in bytes, since the last reset where the system has one."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0
