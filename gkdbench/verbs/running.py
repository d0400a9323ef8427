"""``plan``, ``run``, ``collect`` and ``verify``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gkdbench.verbs.printing import show


def _wanted(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that ``plan`` and ``run`` share."""
    names = ("out", "jobs", "threads", "device", "data", "only", "retry", "max_cells", "tier")
    return {name: getattr(args, name) for name in names}


def plan(args: argparse.Namespace) -> int:
    """``gkdbench plan SUITE``: cells, cached, estimated hours and bytes; nothing runs."""
    from gkdbench.execute.api import plan_suite

    found = plan_suite(args.suite, **_wanted(args))
    if args.json:
        facts = {
            "suite": found.suite.full_name,
            "cells": len(found.todo) + len(found.cached),
            "cached": len(found.cached),
            "to_run": len(found.todo),
            "hours": found.hours,
            "bytes": found.bytes,
            "absent": [str(line) for line in found.absent],
        }
        show(facts, as_json=True)
    else:
        print("\n".join(found.lines()))
        if args.cells:
            for cell in found.todo:
                print(f"  {cell}")
    return 0


def run(args: argparse.Namespace) -> int:
    """``gkdbench run SUITE``: what is missing is run; then the board is printed and written as one HTML page.

    Exit codes: 0 all cells ok; 1 some cell failed; 130 interrupted.
    """
    from gkdbench.execute.api import run_suite
    from gkdbench.execute.progress import progress_for
    from gkdbench.execute.runner import Interrupted

    try:
        summary = run_suite(args.suite, progress=progress_for(), **_wanted(args))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    from gkdbench.verbs.reporting import board_of, print_board, write_page

    facts: dict[str, Any] = {
        "ran": summary.ran,
        "ok": summary.ok,
        "cached": summary.cached,
        "failed": [f"{cell}: {row.status}: {row.reason}; again: {row.command}" for cell, row in summary.failures],
        "absent": summary.absent,
        "records": [str(path) for path in summary.records],
    }
    if summary.records:
        board = board_of(summary.records)
        page = write_page(board, Path(args.out) / "board.html", title=f"gkdbench: {args.suite}")
        facts["html"] = str(page)
        if not args.json:
            print_board(board)
    if args.json:
        show(facts, as_json=True)
        return 1 if summary.failures else 0
    for line in facts["failed"]:
        print(f"failed: {line}", file=sys.stderr)
    for line in summary.absent:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{summary.ran} cells run, {summary.cached} cached, {len(summary.failures)} failed; records: {args.out}")
    if "html" in facts:
        print(f"board: {facts['html']}")
    return 1 if summary.failures else 0


def collect(args: argparse.Namespace) -> int:
    """``gkdbench collect OUT``: merge finished cells into their records (a run does this by itself)."""
    from gkdbench.records.store import Store

    paths = Store(args.out).collect()
    show([{"record": str(path)} for path in paths], as_json=args.json, columns=("record",))
    return 0


def verify(args: argparse.Namespace) -> int:
    """``gkdbench verify PATH``: every score re-computed from its side-car and the data.

    Exit codes: 0 everything re-computes; 1 something does not; 3 nothing is wrong, something was not checked.
    """
    from gkdbench.execute.verify import verify as check

    report = check(args.path, data=args.data)
    if args.json:
        show({**vars(report), "exit_code": report.exit_code}, as_json=True)
        return report.exit_code
    for line in report.problems:
        print(f"wrong: {line}")
    for line in report.not_checked:
        print(f"not checked: {line}")
    print(
        f"{report.records} records, {report.scores} scores computed again, {len(report.problems)} wrong, "
        f"{len(report.not_checked)} not checked"
    )
    return report.exit_code
