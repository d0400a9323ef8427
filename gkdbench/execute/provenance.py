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
        gpu=gpu,
        cuda=cuda,
        driver=driver,
        allocator=dict(allocator),
        argv=impersonal(sys.argv),
    )


def impersonal(argv: Sequence[str]) -> list[str]:
    """Program name and arguments, absolute paths made relative to here, or cut to their last part."""

    def clean(word: str) -> str:
        prefix, equals, value = word.rpartition("=")
        if not os.path.isabs(value):
            return word
        path = Path(value)
        inside = path.is_relative_to(Path.cwd())
        return prefix + equals + (str(path.relative_to(Path.cwd())) if inside else path.name)

    return [Path(argv[0]).name, *(clean(word) for word in argv[1:])] if argv else []


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
