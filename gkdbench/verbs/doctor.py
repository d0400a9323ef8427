"""``doctor``: what this machine has that runs depend on, each finding with its fix."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from gkdbench.registry import Registry
from gkdbench.verbs.printing import say, show, terminal_width, wrapped

OLDEST_TORCH = (2, 11)
PAIRS = {(2, 13): (3, 7)}
"""torch -> the triton that belongs to it, for builds of torch that do not require one."""
GIB = 2**30
LITTLE_BYTES, TOO_LITTLE_BYTES = 2 * GIB, GIB // 10
EXTRAS = {
    "pandas": ("report", "records_frame"),
    "ogb": ("ogb", "OGB's own evaluators"),
    "rdkit": ("chem", "molecules from SMILES"),
    "torch_geometric": ("pyg", "graphs to hand to Task.from_pyg"),
}
"""Optional module -> the extra that brings it, what it is for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Args:
        status: "warn": runs work, slower or with less; "bad": runs fail.
        fix: what to do; empty when there is nothing to do.
    """

    what: str
    status: Literal["ok", "warn", "bad"]
    found: str
    fix: str = ""


def doctor(args: argparse.Namespace) -> int:
    """``gkdbench doctor``. Exit codes: 0 nothing is bad; 1 something is."""
    found = findings(data=args.data, out=args.out)
    if args.json:
        show([asdict(finding) for finding in found], as_json=True)
    else:
        width = terminal_width()
        for finding in found:
            lines = wrapped(f"{finding.status:4}  {finding.what}: {finding.found}", width, indent=" " * 8)
            say("\n".join(lines + (wrapped(f"        {finding.fix}", width, indent=" " * 8) if finding.fix else [])))
    return 1 if any(finding.status == "bad" for finding in found) else 0


def findings(*, data: str | None = None, out: str = "gkdbench-runs") -> list[Finding]:
    """All findings, in the order in which they are printed; a check that cannot even be made is a finding, too."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("triton", _triton),
        ("gpu", _gpu),
        ("cores", _cores),
        ("energy", _energy),
        ("cells", _cells),
        ("allocator", lambda: _allocator(os.environ)),
        ("data", lambda: _data(data)),
        ("cache", _cache),
        ("out", lambda: _folder("out", Path(out), "choose another folder with --out")),
        ("extras", _extras),
        ("plugins", _plugins),
    ]
    found: list[Finding] = []
    for what, check in checks:
        try:
            found += check()
        except ImportError as error:
            found.append(
                Finding(what, "bad", str(error), "install what is missing: pip install -c constraints.txt -e .")
            )
    return found


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.platform()}"
    if sys.platform == "linux":
        yield Finding("python", "ok", found)
    else:
        yield Finding("python", "warn", found, "only Linux is tested; macOS is best effort, Windows is not supported")


def _torch() -> Iterator[Finding]:
    import torch

    if release(torch.__version__) < OLDEST_TORCH:
        wanted = ".".join(map(str, OLDEST_TORCH))
        yield Finding("torch", "bad", torch.__version__, f"pip install 'torch>={wanted}'")
    else:
        yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads in this process")


def _triton() -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("triton", "ok", "not used on this system")
        return
    try:
        has = version("triton")
    except PackageNotFoundError:
        yield Finding("triton", "warn", "not installed: no fused kernels on a GPU", "pip install triton")
        return
    yield triton_pair(version("torch"), requires("torch") or [], has)


def triton_pair(torch: str, requirements: list[str], triton: str) -> Finding:
    """Whether `triton` is the one that `torch` was built with.

    Args:
        torch, triton: installed versions.
        requirements: of torch, as its metadata list them.
    """
    named = next(
        (line.split(";")[0].split("==")[1].strip() for line in requirements if line.startswith("triton==")), ""
    )
    wanted = release(named) if named else PAIRS.get(release(torch))
    both = f"{triton} with torch {torch}"
    if wanted is None:
        return Finding("triton", "ok", f"{both} (this pair is not in the table; tests of the kernels decide)")
    if release(triton) == wanted:
        return Finding("triton", "ok", both)
    fix = f"pip install 'triton=={named or '.'.join(map(str, wanted)) + '.*'}'"
    return Finding("triton", "bad", f"{both}: not the pair that belongs together", fix)


def release(text: str) -> tuple[int, int]:
    """``"2.13.0+cpu"`` -> (2, 13)."""
    major, minor = text.split("+")[0].split(".")[:2]
    return int(major), int(minor)


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found = f"cuda:{number} {facts.name}, {facts.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
            yield Finding("gpu", "ok", found)
    elif not Path("/proc/driver/nvidia/version").exists():
        yield Finding("gpu", "ok", "none; runs use the CPU")
    elif torch.version.cuda is None:
        fix = "install a CUDA build of torch; `gkdbench run --device cpu` works as it is"
        yield Finding("gpu", "warn", "there is an NVIDIA driver, and torch is a CPU build", fix)
    else:
        fix = f"the driver must support CUDA {torch.version.cuda}; look at nvidia-smi and CUDA_VISIBLE_DEVICES"
        yield Finding("gpu", "warn", "there is an NVIDIA driver, and torch sees no device", fix)


def _cores() -> Iterator[Finding]:
    cores, quota = len(os.sched_getaffinity(0)), _quota(Path("/sys/fs/cgroup/cpu.max"))
    found = f"{cores}; a run starts one worker of one thread on each"
    if quota is not None and quota < cores:
        fix = f"use --jobs {max(1, int(quota))}: more workers than that only take turns"
        yield Finding("cores", "warn", f"{cores} seen, {quota:g} granted by the container", fix)
    else:
        yield Finding("cores", "ok", found)


def _energy() -> Iterator[Finding]:
    from gkdbench.measure.energy import POWERCAP, counters

    if counters("cpu"):
        yield Finding("energy", "ok", "counters of the processors can be read; rows have the energy of training")
    elif any(POWERCAP.glob("intel-rapl:*")):
        fix = f"as root: chmod a+r {POWERCAP}/intel-rapl:*/energy_uj; without it rows have no energy"
        yield Finding("energy", "warn", "the processors' counters exist and may not be read", fix)
    else:
        yield Finding("energy", "ok", "no counter of the processors here; rows have no energy")


def _quota(file: Path) -> float | None:
    """Cores that a control group grants (version 2), or None without a limit."""
    try:
        granted, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if granted == "max" else int(granted) / int(period)


def _cells() -> Iterator[Finding]:
    from gkdbench.execute.processes.confine import confinement

    if confinement() == "none":
        yield Finding(
            "cells", "warn", "results and data are not hidden from cells: the system allows no mount namespace",
            "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or read the code of methods first",
        )  # fmt: skip
        return
    yield Finding("cells", "ok", "results and data are hidden from cells by a mount namespace")


def _allocator(environment: Mapping[str, str]) -> Iterator[Finding]:
    from gkdbench.execute.processes.environment import ALLOCATOR

    other = {name: environment[name] for name in ALLOCATOR if environment.get(name, ALLOCATOR[name]) != ALLOCATOR[name]}
    wanted = " ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    if preloaded := environment.get("LD_PRELOAD"):
        fix = "unset LD_PRELOAD for times that others can compare with; scores do not depend on it"
        yield Finding("allocator", "warn", f"LD_PRELOAD={preloaded} may replace glibc's", fix)
    elif other:
        fix = (
            f"unset {' '.join(other)}: workers take your values, and give freed memory back at the cost of page faults"
        )
        yield Finding("allocator", "warn", " ".join(f"{name}={value}" for name, value in other.items()), fix)
    elif platform.libc_ver()[0] != "glibc":
        yield Finding("allocator", "warn", "the C library is not glibc", "times do not compare with those on glibc")
    else:
        mine = "this process too" if all(name in environment for name in ALLOCATOR) else "not this process"
        yield Finding("allocator", "ok", f"workers run under {wanted}; {mine}")


def _data(data: str | None) -> Iterator[Finding]:
    from gkdbench.data.check import list_datasets
    from gkdbench.data.rawfiles import data_folder

    folder = data_folder(data)
    rows = [row for row in list_datasets(folder) if row.needed]
    fetch = "`gkdbench data list` shows what is available, `gkdbench data fetch NAME` gets one"
    if folder is None:
        fix = f"export GKDBENCH_DATA=FOLDER; {fetch}. Built-in sets need none"
        yield Finding("data", "warn", "GKDBENCH_DATA is not set: built-in sets only", fix)
    elif not folder.is_dir():
        yield Finding("data", "bad", f"{folder} is not a folder", "correct GKDBENCH_DATA or --data, or make the folder")
    else:
        absent = [row.info.name for row in rows if not row.available]
        found = f"{len(rows) - len(absent)} of {len(rows)} sets in {folder}"
        if absent:
            found += f"; absent: {', '.join(absent)}"
        yield Finding("data", "ok", found, fetch if absent else "")


def _cache() -> Iterator[Finding]:
    from gkdbench.data.cache import cache_root

    yield from _folder("cache", cache_root(), "set XDG_CACHE_HOME to a folder that you may write to")


def _folder(what: str, folder: Path, fix: str) -> Iterator[Finding]:
    """Whether `folder` can be written to (or made), and what is free there."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield Finding(what, "bad", f"{folder} cannot be written: {there} refuses", fix)
        return
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / GIB:.1f} GiB free"
    if free < LITTLE_BYTES:
        yield Finding(what, "bad" if free < TOO_LITTLE_BYTES else "warn", found, f"free some space, or {fix}")
    else:
        yield Finding(what, "ok", found)


def _extras() -> Iterator[Finding]:
    for module, (extra, purpose) in EXTRAS.items():
        if find_spec(module):
            yield Finding("extras", "ok", f"{module} ({purpose})")
        else:
            yield Finding("extras", "ok", f"no {module} ({purpose})", f"pip install 'gkdbench[{extra}]'")


def _plugins() -> Iterator[Finding]:
    """One line for each thing of another package that cannot be used; everything else works without it."""
    from gkdbench.data.datasets import DATASETS
    from gkdbench.metrics import METRICS
    from gkdbench.nn.backbones import BACKBONES
    from gkdbench.training.registry import METHODS

    registries: list[Registry[Any]] = [METHODS, BACKBONES, DATASETS, METRICS]
    for registry in registries:
        for name, why in registry.broken().items():
            yield Finding("plugins", "warn", f"{registry.kind} {name}: {why}", "nothing else is affected")
