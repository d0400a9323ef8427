"""Hides folders from one cell: on Linux, a mount namespace in which they are empty but for the cell's own folder.

Nothing depends on it: where the kernel refuses, the cell runs all the same, and its record is equal. It turns "a cell
is told no path to other cells' files" into "it cannot open them either".
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from gkdbench.training.registry import METHODS

Confinement = Literal["mount namespace", "none"]

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_STORE_PARTS = (".cells", ".bank", ".scratch", ".logs", "models")


def hidden_folders(out: Path, data: Path | None, results: Iterable[str] = ()) -> list[Path]:
    """What the cells of a run must not see: its results, the raw data, the decoded data.

    A folder that holds code which a cell may import, or the folder of temporary files, cannot be hidden. Of a results
    folder like that, the parts that the store made are hidden; raw data in one like that stay visible.

    Args:
        out: the results folder.
        data: the folder of raw files; None for ``$GKDBENCH_DATA``.
        results: names of subfolders of `out` with records.
    """
    caches = {Path(base) / "gkdbench" for base in (os.environ.get("XDG_CACHE_HOME"), Path.home() / ".cache") if base}
    given = data or os.environ.get("GKDBENCH_DATA")
    wanted = [*caches, *([Path(given)] if given else [])]
    wanted += [out] if _can_hide(out) else [out / part for part in (*_STORE_PARTS, *results)]
    resolved = {path.resolve() for path in wanted if _can_hide(path)}
    return sorted(path for path in resolved if not any(parent in resolved for parent in path.parents))


def _can_hide(folder: Path) -> bool:
    folder = folder.resolve()
    return not any(needed.is_relative_to(folder) for needed in _needed())


def _needed() -> set[Path]:
    """Folders that a cell must go on seeing: code, and temporary files."""
    roots = [*sys.path, os.environ.get("PYTHONPATH", ""), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
    roots += [tempfile.gettempdir(), str(Path(__file__).parents[1]), str(Path.home())]
    modules = {entry.target.partition(":")[0].partition(".")[0] for entry in METHODS.entries().values()}
    found = [spec.origin for name in modules if (spec := find_spec(name)) is not None and spec.origin]
    return {Path(part).resolve() for root in [*roots, *found] for part in root.split(os.pathsep) if part} | {Path.cwd()}


def confine(hidden: Sequence[Path], own: Path, later: Path | None) -> int | None:
    """Hide `hidden` and `later` from this process and its children, all of `own` but `later` excepted.

    Call it while the process has one thread.

    Args:
        hidden: absolute folders without symbolic links; those that do not exist are left out.
        own: the cell's folder.
        later: a folder below `own`.

    Returns:
        A file descriptor of `later`, which stays readable through it (-1 where `later` is None); None where the
        kernel refused: then nothing is hidden.
    """
    mounted: list[str] = []
    try:
        _enter_namespace()
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        kept = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in hidden:
            if folder.is_dir():
                _hide(folder, mounted)
                if own.is_relative_to(folder):
                    own.mkdir(parents=True)
                    _mount(f"/proc/self/fd/{kept}", str(own), "", _MS_BIND)
                    mounted.append(str(own))
        os.close(kept)
        if later is None:
            return -1
        found = os.open(later, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _hide(later, mounted)
        return found
    except OSError:
        for place in reversed(mounted):
            _libc().umount2(os.fsencode(place), _MNT_DETACH)
        return None


def _hide(folder: Path, mounted: list[str]) -> None:
    """Mount an empty folder over `folder`, and say so in `mounted`."""
    _mount("tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k,nr_inodes=64,mode=0755")
    mounted.append(str(folder))


def _enter_namespace() -> None:
    """A mount namespace of this process's own, in a user namespace of its own where that needs no privilege.

    Raises:
        OSError: the kernel, or its settings, refuse both; or this is not Linux.
    """
    if sys.platform != "linux":
        raise OSError("mount namespaces are Linux's")
    user, group = os.geteuid(), os.getegid()
    if _unshare(_CLONE_NEWNS):
        return
    if not _unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _unshare(flags: int) -> bool:
    return bool(_libc().unshare(flags) == 0)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    places = os.fsencode(source), os.fsencode(target)  # names that are not UTF-8 too
    if _libc().mount(*places, kind.encode(), ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), "mount refused", target)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def confinement() -> Confinement:
    """What hides folders from the cells of runs on this machine; tried in a process that ends at once."""
    tried = subprocess.run(
        [sys.executable, "-m", "gkdbench.execute.processes.confine"], capture_output=True, timeout=60
    )
    return "mount namespace" if tried.returncode == 0 else "none"


def can_confine() -> bool:
    """Whether `confine` works here, tried in a fork: a process that the kernel refuses halfway has lost its user id.

    Call it while the process has one thread.
    """
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").touch()
        pid = os.fork()
        if pid == 0:
            try:
                hidden = confine([Path(folder).resolve()], Path("/"), None) == -1
                os._exit(0 if hidden and not os.listdir(folder) else 1)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    sys.exit(0 if can_confine() else 1)
