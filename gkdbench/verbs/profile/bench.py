"""Where and how everything of one ``profile kernels`` or ``profile methods`` is measured, and its JSON file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.verbs.printing import say

if TYPE_CHECKING:
    import torch

    from gkdbench.measure.machine_peaks import MachinePeaks
    from gkdbench.measure.operators.bench import BenchSettings
    from gkdbench.measure.timers import Clock

FORMAT = 1  # of the JSON files


def wanted_environment(threads: int) -> dict[str, str]:
    """What the measuring process runs under: threads, and the allocator's setting of the runner's workers."""
    from gkdbench.execute.processes.environment import ALLOCATOR

    if threads < 1:
        raise UserError(f"--threads: expected at least 1, got {threads}")
    quiet = {"KINETO_LOG_LEVEL": "99"}  # the profiler that counts allocations announces itself otherwise
    return {**ALLOCATOR, **quiet, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def words(args: argparse.Namespace) -> list[str]:
    """The arguments as they are typed."""
    found = []
    for name, value in sorted(vars(args).items()):
        if name in ("verb", "parser", "command") or value is None or value is False:
            continue
        found += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return found


Payload = dict[str, Any]
"""What is written as JSON."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how everything of one call is measured."""

    args: argparse.Namespace
    device: torch.device
    clock: Clock
    roofs: MachinePeaks
    settings: BenchSettings


def measured(args: argparse.Namespace, action: str, work: Callable[[Bench, Payload], bool]) -> int:
    """Check the clock, measure the roofs, do `work` (False: something is red or not met) and write the payload."""
    environment = wanted_environment(args.threads)
    if any(os.environ.get(name) != value for name, value in environment.items()):
        # both the allocator and OpenMP read their settings when a process starts
        command = [sys.executable, "-m", "gkdbench.cli", "profile", action, *words(args)]
        return subprocess.run(command, env=os.environ | environment).returncode
    import torch

    from gkdbench.measure.machine_peaks import measure_roofs
    from gkdbench.measure.operators.bench import BenchSettings
    from gkdbench.measure.timers import check_clock, clock_for

    torch.set_num_threads(args.threads)
    device = device_named(args.device)
    clock = clock_for(device)
    try:
        error = check_clock(clock, device)
    except RuntimeError as failure:
        raise UserError(f"{failure}; is the machine busy?") from failure
    roofs = measure_roofs(clock, device, quick=args.quick)
    settings = BenchSettings(
        rounds=5 if args.quick else args.rounds,
        budget_s=1.0 if args.quick else args.budget,
        slow=not args.quick,
        caches=args.caches,
    )
    say(
        f"{device}, {args.threads} threads, caches {args.caches}; clock checked: off by {error:.1%} on a known duration"
    )
    payload: Payload = {"format": FORMAT, "quick": args.quick, "threads": args.threads, "clock_error": error}
    payload |= {"roofs": asdict(roofs), "provenance": provenance_on(device)}
    fine = work(Bench(args, device, clock, roofs, settings), payload)
    if args.json:
        write(Path(args.json), payload)
        say(f"written: {args.json}")
    return 0 if fine else 1


def write(path: Path, payload: Payload) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(payload, indent=1, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


def require_cpu(bench: Bench, what: str) -> None:
    if bench.device.type != "cpu":
        raise UserError(f"{what}: expected --device cpu, got --device {bench.device}")


def device_named(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device: expected auto, cpu or cuda:i, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device: expected one of {torch.cuda.device_count()} CUDA devices, got {name}")
    return device


def provenance_on(device: torch.device) -> dict[str, Any]:
    from gkdbench.execute.processes.environment import allocator_of
    from gkdbench.execute.provenance import provenance
    from gkdbench.measure.operators.bench import CaseResult

    found = provenance(CaseResult, device=str(device), allocator=allocator_of(dict(os.environ)))
    return found.model_dump(mode="json")
