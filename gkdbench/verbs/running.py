"""``plan``, ``run``, ``collect`` and ``verify``."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.meter import WorkMeter
from gkdbench.printable import encodable
from gkdbench.verbs.cost import plan_cost, run_cost
from gkdbench.verbs.datasets import nothing_there
from gkdbench.verbs.printing import say, show

if TYPE_CHECKING:
    from gkdbench.execute.cell import Cell
    from gkdbench.execute.rerun import RerunReport
    from gkdbench.execute.suite import Suite


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that ``plan`` and ``run`` share."""
    names = ("out", "jobs", "threads", "device", "data", "only", "retry", "rerun", "max_cells", "tier")
    return {name: getattr(args, name) for name in names}


def _suite(args: argparse.Namespace) -> Suite:
    """The suite that is named, or the one that ``--method`` and its companions describe.

    Raises:
        UserError: both, neither, or several suites; hyper-parameters in addition to a suite.
    """
    from gkdbench.execute.inline_suite import default_split, hyper_parameters, method_with_hyper_parameters, suite_of

    suites = [word for word in args.words if "=" not in word or word.endswith(".toml")]
    words = [word for word in args.words if word not in suites]
    if len(suites) > 1:
        raise UserError(f"expected one suite, got {', '.join(suites)}; run them one after the other")
    if words and not args.method:
        got = f", got the suite {suites[0]!r}, which states its own" if suites else ""
        raise UserError(f"{words[0]}: hyper-parameters go with --method and --dataset{got}")
    split = args.split
    if args.method and args.dataset and not suites and split is None:
        split = default_split(args.dataset)
        say(f"split: {split} (the default of {args.dataset}; --split takes another)", file=sys.stderr)
    return suite_of(
        suites[0] if suites else None,
        methods=[method_with_hyper_parameters(text) for text in args.method or ()] or None,
        dataset=args.dataset,
        split=split,
        seeds=args.seeds,
        overrides=hyper_parameters(words),
    )


def plan(args: argparse.Namespace) -> int:
    """``gkdbench plan SUITE``: cells, cached, estimated hours and bytes; nothing runs."""
    from gkdbench.execute.api import plan_suite
    from gkdbench.execute.changed import changed_line
    from gkdbench.records.store import Store

    suite = _suite(args)
    if suite.measures == "cost":
        return plan_cost(suite, args)
    found = plan_suite(suite, **_options(args))
    if args.trial:
        from gkdbench.execute.planning.trials import tried

        given = {name: getattr(args, name) for name in ("device", "threads", "jobs")}
        found = tried(found, Store(args.out), data=None if args.data is None else Path(args.data), **given)
    if args.json:
        facts: dict[str, Any] = {
            "suite": found.suite.full_name,
            "cells": len(found.todo) + len(found.cached),
            "cached": len(found.cached),
            "to_run": len(found.todo),
            "hours": found.hours,
            "hours_low": found.interval[0],
            "hours_high": found.interval[1],
            "guessed": found.guessed,
            "bytes": found.bytes,
            "absent": [str(line) for line in found.absent],
        }
        if args.cells:
            listed = [*((cell, False) for cell in found.todo), *((cell, True) for cell in found.cached)]
            facts["cell_list"] = [_cell_facts(cell, cached) for cell, cached in sorted(listed, key=_key)]
        show(facts, as_json=True)
        if found.changed:
            say(changed_line(found.changed), file=sys.stderr)
    else:
        say("\n".join(found.lines()))
        if args.cells:
            for cell in found.todo:
                say(f"  {cell}")
    return 0 if found.todo or found.cached or not found.absent else nothing_there(args.data)


def _key(listed: tuple[Cell, bool]) -> str:
    return listed[0].key


def _cell_facts(cell: Cell, cached: bool) -> dict[str, Any]:
    of = cell.group.identity
    return {
        "key": cell.key,
        "method": of.method,
        "label": cell.group.label,
        "dataset": of.dataset,
        "split": of.split,
        "setting": of.setting,
        "index": cell.index,
        "seed": cell.seed,
        "tier": cell.tier,
        "cached": cached,
    }


def run(args: argparse.Namespace) -> int:
    """``gkdbench run SUITE``: what is missing is run; then the board is printed and written as one HTML page.

    Exit codes: 0 all cells ok; 1 some cell failed; 3 all data are absent; 130 interrupted.
    """
    from gkdbench.execute.api import plan_suite, run_suite
    from gkdbench.execute.failures import failures_of
    from gkdbench.execute.plan import verdict
    from gkdbench.execute.progress import progress_for
    from gkdbench.execute.provenance import code_is_dirty, is_tracked, refuse_dirty
    from gkdbench.execute.runner import Interrupted
    from gkdbench.records.store import Store

    suite = _suite(args)
    if suite.measures == "cost":
        return run_cost(suite, args)
    if args.debug is not None:
        return _debug(suite, args)
    if not args.allow_dirty and is_tracked(Path(args.out)) and code_is_dirty():
        planned = plan_suite(suite, **_options(args))  # where every row is there, none is written
        refuse_dirty(args.out, bool(planned.todo or planned.waiting), "code that differs from its commit")
    try:
        summary = run_suite(suite, progress=progress_for(), keep_models=args.keep_models, **_options(args))
    except Interrupted as stop:
        say(Interrupted(stop.summary, stop.left, args.command), file=sys.stderr)
        return 130
    from gkdbench.verbs.reporting import board_of, flat_facts, print_board, write_page

    facts: dict[str, Any] = {
        "ran": summary.ran,
        "ok": summary.ok,
        "cached": summary.cached,
        "failed": [f"{cell}: {row.status}: {row.reason}; again: {row.command}" for cell, row in summary.failures],
        "absent": summary.absent,
        "refused": summary.refused,
        "set_aside": summary.set_aside,
        "records": [str(path) for path in summary.records],
        "planned_hours": summary.planned_hours,
        "took_hours": summary.seconds / 3600,
    }
    if summary.records:
        board = board_of(summary.records, costs=[args.out])
        facts["flat"] = flat_facts(board)
        title = encodable(f"gkdbench: {suite.full_name if args.method else suite.command_name}")
        page = write_page(board, Path(args.out) / "board.html", title=title)
        facts["html"] = str(page)
        if not args.json:
            below = {row.command for _, row in summary.failures}  # printed after the board, with line and log
            earlier = tuple(failure for failure in board.failures if failure.command not in below)
            print_board(replace(board, failures=earlier))
    if args.json:
        show(facts, as_json=True)
    for failure in failures_of(summary.failures, Store(args.out)):
        say("\n".join(failure.lines(_same_place(args), "" if args.method else args.words[0])), file=sys.stderr)
    for line in summary.set_aside:
        say(line, file=sys.stderr)
    if summary.without_model:
        say(
            f"--keep-models: {summary.without_model} cached cells have no kept model; --rerun trains them again",
            file=sys.stderr,
        )
    for line in summary.absent if not args.json else ():
        say(f"skipped: {line}", file=sys.stderr)
    for line in summary.refused if not args.json else ():
        say(f"refused: {line}", file=sys.stderr)
    if not args.json:
        say(f"{summary.ran} cells run, {summary.cached} cached, {len(summary.failures)} failed; records: {args.out}")
        if summary.ran and summary.planned_hours:
            say(verdict(summary.planned_hours, summary.planned_interval, summary.seconds / 3600))
    if "html" in facts and not args.json:
        say(f"board: {facts['html']}")
    if summary.failures or summary.refused or summary.lost:
        return 1
    return nothing_there(args.data) if summary.absent and not summary.ran + summary.cached else 0


def _same_place(args: argparse.Namespace) -> str:
    """The options that make a row's command read and write where this one did."""
    from gkdbench.execute.api import OUT

    out = "" if args.out == OUT else f" --out {shlex.quote(args.out)}"
    return out + (f" --data {shlex.quote(args.data)}" if args.data else "")


def _debug(suite: Suite, args: argparse.Namespace) -> int:
    """``gkdbench run SUITE --debug CELL``. Exit codes: 0 it ended well; 1 it failed."""
    from gkdbench.execute.debug import debug_cell
    from gkdbench.execute.progress import progress_for

    refused = ("only", "retry", "rerun", "max_cells", "tier", "keep_models", "json")
    for name in refused:
        if getattr(args, name):
            raise UserError(
                f"--debug trains the one cell that it names and stores nothing; leave out --{name.replace('_', '-')}"
            )
    where = {name: getattr(args, name) for name in ("out", "jobs", "threads", "device", "data")}

    def tell(line: str) -> None:
        say(line, file=sys.stderr, flush=True)

    ended = debug_cell(suite, args.debug, progress=progress_for(), tell=tell, **where)
    took = "" if ended.train_s is None else f" in {ended.train_s:.1f} s"
    if ended.status == "ok":
        tell(f"ended well after {ended.epochs} epochs{took}; nothing was stored")
        return 0
    if (ended.reason or "").startswith("BdbQuit"):
        tell("left at the debugger's prompt; nothing was stored")
        return 1
    tell((ended.traceback or "").rstrip() or f"{ended.status}: {ended.reason}")
    tell(f"ended with status {ended.status} after {ended.epochs} epochs; nothing was stored")
    return 1


def collect(args: argparse.Namespace) -> int:
    """``gkdbench collect OUT``: merge finished cells into their records (a run does this by itself).

    Cells of another protocol version stay where they are, and are named on standard error.
    """
    from gkdbench.execute.provenance import refuse_dirty
    from gkdbench.records.schema import PROTOCOL_VERSION
    from gkdbench.records.store import Store, record_paths

    if not Path(args.out).is_dir():
        raise UserError(f"collect: expected the folder of a run, got {args.out!r}, no folder; `gkdbench run` makes one")
    store = Store(args.out, mends=True)
    if not store.cells.is_dir() and not record_paths(Path(args.out), studies=True):
        raise UserError(
            f"collect: expected the folder of a run, got {args.out!r}, which has neither cells nor records; "
            "`gkdbench run` makes one"
        )
    if not args.allow_dirty:
        dirty = store.dirty()
        refuse_dirty(args.out, bool(dirty), ", ".join(map(str, dirty[:3])))
    paths = store.collect()
    for line in store.damaged.told:
        say(line, file=sys.stderr)
    show([{"record": str(path)} for path in paths], as_json=args.json, columns=("record",))
    for path, version in store.left():
        say(
            f"left: {path} is of protocol {version}, this gkdbench collects protocol {PROTOCOL_VERSION}; a record is "
            "never written again under another protocol",
            file=sys.stderr,
        )
    return 0


def verify(args: argparse.Namespace) -> int:
    """``gkdbench verify PATH``: every score re-computed from its side-car and the data.

    With ``--rerun N``, N rows are trained again as well. Exit codes: 0 everything re-computes; 1 something does not; 3
    nothing is wrong, something was not checked.
    """
    from gkdbench.execute.verify import verify as check

    if args.rerun is None and (args.seed is not None or args.cheapest or args.jobs is not None):
        raise UserError("--seed, --cheapest and --jobs belong to --rerun N; add it, or leave them out")
    meter = WorkMeter(0, "steps")
    report = check(args.path, data=args.data, tell=meter.step_of)
    meter.end()
    again = _rerun(args) if args.rerun is not None else None
    exit_code = 1 if again is not None and again.problems else report.exit_code
    if args.json:
        trained = {} if again is None else {"rerun": again.as_json()}
        show({**report.as_json(), **trained, "exit_code": exit_code}, as_json=True)
        return exit_code
    for line in report.problems:
        say(f"wrong: {line}")
    for line in report.not_checked:
        say(f"not checked: {line}")
    for line in report.incomplete:
        say(f"incomplete: {line}")
    for line in report.mixed:
        say(f"mixed: {line}")
    if report.dirty:
        some = ", ".join(report.dirty[:3]) + (", ..." if len(report.dirty) > 3 else "")
        say(f"{len(report.dirty)} rows come from code that differed from its commit (--json names all): {some}")
    say(
        f"{report.records} records, {report.scores} scores computed again, {len(report.problems)} wrong, "
        f"{len(report.not_checked)} not checked"
    )
    for line in again.lines() if again is not None else []:
        say(line)
    return exit_code


def _rerun(args: argparse.Namespace) -> RerunReport:
    from gkdbench.execute.progress import Silent, progress_for
    from gkdbench.execute.rerun import rerun

    progress = Silent() if args.json else progress_for()
    given = {name: getattr(args, name) for name in ("seed", "cheapest", "data", "jobs")}
    return rerun(args.path, args.rerun, progress=progress, **given)
