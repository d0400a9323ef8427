"""``plan`` and ``run`` of a suite that measures cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.verbs.datasets import nothing_there
from gkdbench.verbs.printing import say, show

if TYPE_CHECKING:
    from gkdbench.execute.suite import Suite


def plan_cost(suite: Suite, args: argparse.Namespace) -> int:
    """``gkdbench plan SUITE``: which measurements are there, which are missing."""
    from gkdbench.execute.api import device_class, pick_device
    from gkdbench.execute.cost.cells import measured_cells
    from gkdbench.execute.select import parse_only
    from gkdbench.records.store import Store

    out, data = Path(args.out), None if args.data is None else Path(args.data)
    device, threads = device_class(pick_device(args.device)), args.threads or suite.threads
    only = parse_only(args.only) or None
    cells, absent = measured_cells(suite, Store(out), data=data, device=device, threads=threads, only=only)
    missing = [cell for cell in cells if not cell.is_stored(out)]
    facts: dict[str, Any] = {
        "suite": suite.full_name,
        "measurements": len(cells),
        "cached": len(cells) - len(missing),
        "to_run": len(missing),
        "absent": [str(line) for line in absent],
    }
    if args.json:
        if args.cells:
            facts["cell_list"] = [_facts(cell, cell not in missing) for cell in cells]
        show(facts, as_json=True)
    else:
        _print_plan(facts, missing if args.cells else [])
    return nothing_there(args.data) if absent and not cells else 0


def _print_plan(facts: dict[str, Any], listed: list[Any]) -> None:
    counts = f"{facts['measurements']} measurements, {facts['cached']} cached, {facts['to_run']} to take"
    say(f"suite {facts['suite']}: {counts}")
    for line in [*facts["absent"], *(f"  {cell}" for cell in listed)]:
        say(line)


def run_cost(suite: Suite, args: argparse.Namespace) -> int:
    """``gkdbench run SUITE``: the missing measurements are taken, one at a time.

    Exit codes: 0 all measurements taken; 1 some failed; 3 all data are absent; 130 interrupted.
    """
    from gkdbench.execute.api import job_count
    from gkdbench.execute.cost.run import run_cost_suite
    from gkdbench.execute.progress import Lines
    from gkdbench.execute.select import parse_only
    from gkdbench.records.measurement import load_measurement
    from gkdbench.report.costtable import cost_table

    try:
        found = run_cost_suite(
            suite,
            out=Path(args.out),
            data=None if args.data is None else Path(args.data),
            device=args.device,
            threads=args.threads,
            jobs=job_count(args.jobs, args.threads),
            only=parse_only(args.only) or None,
            retry=args.retry,
            retry_noisy=args.retry_noisy,
            rerun=args.rerun,
            max_cells=args.max_cells,
            progress=Lines(sys.stderr),
        )
    except KeyboardInterrupt:
        say(f"interrupted; what was taken is stored; go on with: {args.command}", file=sys.stderr)
        return 130
    failed = [f"{cell}: {why}" for cell, why in found.failures]
    facts = {
        "ok": found.ok,
        "cached": found.cached,
        "noisy": found.noisy,
        "failed": failed,
        "absent": found.absent,
        "records": [str(path) for path in found.records],
    }
    if args.json:
        show(facts, as_json=True)
    else:
        noisy = f", {found.noisy} of them noisy (--retry-noisy takes them again)" if found.noisy else ""
        if found.records:
            say(cost_table([load_measurement(path) for path in found.records]))
        say(f"{found.ok} measurements taken{noisy}, {found.cached} cached, {len(found.failures)} failed")
        say("".join(f"{line}\n" for line in failed), end="", file=sys.stderr)
    if found.failures:
        return 1
    return nothing_there(args.data) if found.absent and not found.ok + found.cached else 0


def _facts(cell: Any, cached: bool) -> dict[str, Any]:
    of = cell.identity
    return {"key": of.key, "method": of.method, "label": cell.cell.group.label, "dataset": of.dataset,
            "split": of.split, "device": of.device, "cached": cached}  # fmt: skip
