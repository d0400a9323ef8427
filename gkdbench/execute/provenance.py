"""Where numbers come from: code, versions, machine. Stored with every record, part of no equality."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.printable import encodable
from gkdbench.records.schema import Provenance


def provenance(method: type, *, device: str, allocator: Mapping[str, str]) -> Provenance:
    """The provenance of runs of `method` on `device` (``cpu``, ``cuda:i``), under the workers' `allocator` settings."""
    commit, dirty = _git()
    gpu, cuda, driver = _gpu(device)
    return Provenance(
        gkdbench=_version("gkdbench") or "",
        git_commit=commit,
        git_dirty=dirty,
        method_source_sha256=source_sha256(method),
        python=platform.python_version(),
        torch=_version("torch") or "",
        triton=_version("triton"),
        numpy=_version("numpy") or "",
        platform=platform.platform(),
        cpu=cpu_name(),
        cpu_flags=cpu_flags(),
        gpu=gpu,
        cuda=cuda,
        driver=driver,
        allocator=dict(allocator),
        argv=impersonal(sys.argv),
    )


def impersonal(argv: Sequence[str]) -> list[str]:
    """Program name and arguments, absolute paths made relative to here, or cut to their last part, in characters that
    UTF-8 has."""

    def clean(word: str) -> str:
        prefix, equals, value = word.rpartition("=")
        if not os.path.isabs(value):
            return word
        path = Path(value)
        inside = path.is_relative_to(Path.cwd())
        return prefix + equals + (str(path.relative_to(Path.cwd())) if inside else path.name)

    return [encodable(word) for word in (Path(argv[0]).name, *map(clean, argv[1:]))] if argv else []


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package is imported from, and whether tracked files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None

    def git(*words: str) -> str:
        found = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.strip()

    try:
        # A run into the checkout's results/ changes records, and those are not what made its numbers.
        code = (":/", ":(exclude,top)results")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "--", *code))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def source_sha256(method: type) -> str:
    """sha256 of the file that defines the class `method`, hexadecimal; empty where there is no such file."""
    source = inspect.getsourcefile(method)
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def cpu_name() -> str:
    """The processor's model as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


_ARITHMETIC = ("sse4", "avx", "fma", "f16c", "amx", "asimd", "sve", "bf16", "i8mm")
"""What flags begin with by which libraries choose how they add: other sets may give other bits."""


@cache
def cpu_flags() -> list[str]:
    """The processor's instruction sets that change bits, sorted; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    found = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted(flag for flag in set(found) if flag.startswith(_ARITHMETIC))


def refuse_dirty(out: Path | str, dirty: bool, what: str) -> None:
    """Refuse rows that nobody can make again where git would publish them.

    Args:
        out: folder of records.
        dirty: whether there are rows from code that differs from its commit.
        what: which rows these are, for the message.

    Raises:
        UserError: they would come into a folder that git tracks.
    """
    if dirty and is_tracked(Path(out)):
        raise UserError(
            f"{out}: expected rows of committed code in a folder that git tracks, got {what}; commit the changes, give "
            "another --out, or give --allow-dirty: the rows will be marked"
        )


def code_is_dirty() -> bool:
    """Whether tracked files of the checkout that this package is imported from differ from its commit."""
    return bool(_git()[1])


def is_tracked(folder: Path) -> bool:
    """Whether git tracks a file below `folder`."""
    try:
        if not folder.is_dir():
            return False
        asked = ["git", "-C", str(folder), "ls-files", "--", "."]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(found.stdout.strip())


@cache
def _gpu(device: str) -> tuple[str | None, str | None, str | None]:
    """(name, CUDA version, driver version) of a CUDA device; nothing for the CPU."""
    if device == "cpu":
        return None, None, None
    import torch

    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        driver = found.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = None
    return torch.cuda.get_device_name(device), torch.version.cuda, driver
