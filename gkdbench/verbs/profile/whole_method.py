"""``profile training METHOD``, ``profile inference METHOD``: the operators of one method, a page and traces."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gkdbench.errors import UserError
from gkdbench.text_files import write_text
from gkdbench.verbs.printing import say, show
from gkdbench.verbs.profile.bench import wanted_environment

if TYPE_CHECKING:
    from gkdbench.execute.cell import Cell
    from gkdbench.measure.profiles.profile import Profile

SHOWN = 8
"""Operators that the terminal lists."""


def training(args: argparse.Namespace) -> int:
    """``gkdbench profile training METHOD [KEY=VALUE ...]``."""
    return _profiled(args, "training")


def inference(args: argparse.Namespace) -> int:
    """``gkdbench profile inference METHOD [KEY=VALUE ...]``."""
    return _profiled(args, "inference")


def _profiled(args: argparse.Namespace, action: str) -> int:
    environment, data = wanted_environment(args.threads), Path(args.data) if args.data else None
    out, cell = _folder(args.out), _cell(args, data)
    if any(os.environ.get(name) != value for name, value in environment.items()):
        # both the allocator and OpenMP read their settings when a process starts
        command = [sys.executable, "-m", "gkdbench.cli", "profile", action, *_words(args)]
        return subprocess.run(command, env=os.environ | environment).returncode
    import torch

    from gkdbench.execute.api import pick_device
    from gkdbench.execute.profiling import profile_inference, profile_training, short_runs
    from gkdbench.measure.machine_peaks import measure_roofs
    from gkdbench.measure.timers import clock_for

    work = profile_training if action == "training" else profile_inference
    device = torch.device(pick_device(args.device))
    torch.set_num_threads(args.threads)
    peaks = measure_roofs(clock_for(device), device, quick=args.quick)
    stem, found = f"{_stem(cell)}-{action}", []
    with short_runs(cell, data=data, device=args.device, threads=args.threads) as runs:
        for name, profile, recorder in work(cell, runs, peaks, epochs=args.epochs):
            trace = f"{stem}.trace.json" if name == action else f"{stem}-{name}.trace.json"
            recorder.write_trace(out / trace)
            found.append((profile, trace))
    path = out / f"{stem}.md"
    write_text(path, _page(cell, action, args, found))
    if args.json:
        profiles = [profile.as_json() | {"trace": str(out / trace)} for profile, trace in found]
        show({"page": str(path), "cell": cell.selector(), "profiles": profiles}, as_json=True)
        return 0
    for profile, _ in found:
        _print(profile)
    say(f"\nwritten: {path}, and {len(found)} trace{'s' if len(found) > 1 else ''} for https://ui.perfetto.dev")
    return 0


def _cell(args: argparse.Namespace, data: Path | None) -> Cell:
    from gkdbench.execute.inline_suite import hyper_parameters
    from gkdbench.execute.profiling import planned_cell

    if args.epochs < 1:
        raise UserError(f"--epochs: expected at least 1, got {args.epochs}")
    where = {"dataset": args.dataset, "split": args.split, "data": data, "device": args.device}
    return planned_cell(args.method, hyper_parameters(args.words), threads=args.threads, **where)


def _folder(text: str) -> Path:
    folder = Path(text)
    probe = folder / f".write~{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--out: expected a folder that can be written, got {text} ({error.strerror}); try another"
        ) from None
    return folder


def _stem(cell: Cell) -> str:
    of = cell.group.identity
    return re.sub(r"[^\w.-]+", "-", f"{of.method}-{of.dataset}")


def _words(args: argparse.Namespace) -> list[str]:
    """The arguments as they are typed."""
    found = [args.method, *args.words]
    for name in ("dataset", "split", "epochs", "out", "device", "threads", "data"):
        if getattr(args, name) is not None:
            found += [f"--{name}", str(getattr(args, name))]
    return found + [f"--{name}" for name in ("quick", "json") if getattr(args, name)]


def _page(cell: Cell, action: str, args: argparse.Namespace, found: list[tuple[Profile, str]]) -> str:
    from gkdbench.measure.profiles.page import page

    of, data = cell.group.identity, cell.group.data
    facts = {
        "method": cell.group.label,
        "data": f"{of.dataset}, split {of.split}: {data.nodes} nodes, {data.edges} edges, {data.features} features",
        "device": f"{args.device}, {args.threads} threads",
    }
    if args.quick:
        facts["quick"] = "the peaks are of tiny arrays: the roofline column means nothing"
    return page(f"{action.capitalize()} of {of.method} on {of.dataset}", facts, found)


def _print(profile: Profile) -> None:
    say(f"\n{profile.what}: {profile.units} profiled; {profile.percent_of_roof:.0f}% of the roofline")
    for row in profile.rows[:SHOWN]:
        bound = f"bound by {row.bound}, {row.percent_of_roof:.0f}% of the roofline" if row.bound else ""
        say(f"  {row.share:6.1%}  {row.name:44}  {bound}".rstrip())
