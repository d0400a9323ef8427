"""One cell in this process: its prints reach the terminal, ``breakpoint()`` stops, an exception shows its traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gkdbench.data.splits import prepare_named
from gkdbench.errors import UserError
from gkdbench.execute.api import RunSettings, device_class, job_count, pick_device, run_plan
from gkdbench.execute.cell import Cell, with_teachers
from gkdbench.execute.job import Job
from gkdbench.execute.plan import make_plan
from gkdbench.execute.processes.cell_folder import make_cell_folder
from gkdbench.execute.processes.environment import worker_environment
from gkdbench.execute.progress import Progress
from gkdbench.execute.runner import banks_of, job_of, scratch_folder
from gkdbench.execute.select import parse_only, select
from gkdbench.execute.suite import Suite
from gkdbench.protocol.view_io import write_bundle
from gkdbench.records.store import Store

SHOWN = 5
"""So many cells are listed when a selector matches several."""


@dataclass(frozen=True)
class Debugged:
    """How a cell's training in this process ended.

    Args:
        status, reason, traceback, epochs, train_s: as a row has them.
    """

    cell: Cell
    status: str
    reason: str | None
    traceback: str | None
    epochs: int
    train_s: float | None


def debug_cell(
    suite: Suite,
    selector: str,
    *,
    out: str | Path,
    progress: Progress,
    tell: Callable[[str], None],
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
) -> Debugged:
    """Train the one cell that `selector` names, in this process, and store nothing of it.

    Teachers whose weights are not there are trained first, by workers, and stored as in any run. The method is given
    what a worker would give it: the view on disk without test labels; raw data are out of reach meanwhile. Limits of
    time and memory are off.

    Args:
        selector: as ``--only`` takes it; it must match one cell, teachers of that cell aside.
        tell: called with lines for the user.

    Raises:
        UserError: no cell or several match, or a teacher cannot be trained.
    """
    store, where = Store(out), pick_device(device)
    folder_of_data = None if data is None else Path(data)
    kind = device_class(where)
    everything = make_plan(suite, store, data=folder_of_data, device=kind, threads=threads)
    cell = one_cell([*everything.todo, *everything.cached], selector)
    only = {"key": cell.group.key, "index": str(cell.index), "seed": str(cell.seed)}
    plan = make_plan(suite, store, data=folder_of_data, device=kind, threads=threads, only=only, rerun=True)
    teachers = [one for one in plan.todo if one.key != cell.key]
    if teachers:
        tell(f"first the teachers of {cell}: {len(teachers)} to train, by workers")
        settings = RunSettings(jobs=job_count(jobs, threads), device=where, threads=threads, data=folder_of_data)
        summary = run_plan(
            replace(plan, todo=teachers, cached=[], changed=[], guessed=len(teachers)), store, progress, settings
        )
        if summary.failures:
            teacher, row = summary.failures[0]
            raise UserError(
                f"a teacher of {cell} failed: {teacher}: {row.reason}; debug that first: --debug {teacher.selector()}"
            )
    tell(f"debugging {cell} in this process; nothing of it is stored, and its limits of time and memory are off")
    store.open()
    try:
        with scratch_folder(store) as folder:
            view = folder / "views" / "view"
            view.parent.mkdir(parents=True)
            write_bundle(prepare_named(*cell.split_task, data=folder_of_data), view)
            own = make_cell_folder(folder / "cells" / "cell-0", view, banks_of(cell, store))
            job = job_of(cell, number=0, folder=own, device=where)
            outcome = _train(job, threads or suite.threads)
    finally:
        store.close()
    facts = {name: outcome[name] for name in ("status", "reason", "traceback", "epochs", "train_s")}
    return Debugged(cell, **facts)


def one_cell(cells: Sequence[Cell], selector: str) -> Cell:
    """The cell that `selector` names among `cells`.

    Raises:
        UserError: it matches none, or several even without those that are teachers of others.
    """
    only = parse_only(selector)
    if not only:
        raise UserError("--debug expects the fields of one cell, got none; try --debug method=glnn,seed=0")
    chosen = select(cells, only)
    teachers = required_by_others(chosen)
    left = [cell for cell in chosen if cell.key not in teachers] or chosen
    if len(left) != 1:
        left.sort(key=lambda cell: (cell.group.identity.method, cell.index, cell.seed))
        lines = [f"  {cell.selector()}" for cell in left[:SHOWN]] + ["  ..."] * (len(left) > SHOWN)
        count = f"{len(left)} cells" if left else "none"
        raise UserError(
            f"--debug expects the fields of one cell, {selector!r} matches {count}; add a field:\n" + "\n".join(lines)
        )
    return left[0]


def required_by_others(cells: Sequence[Cell]) -> set[str]:
    """Keys of the teachers of `cells`, and of their teachers."""
    return {teacher.key for teacher in with_teachers(t for cell in cells for t in cell.requires.values())}


def _train(job: Job, threads: int) -> dict[str, Any]:
    """The outcome of `job`, trained by the function that every cell's process calls."""
    import torch

    from gkdbench.execute.processes.cell_process import serve

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with as_worker(worker_environment(threads)):
            answer = serve(job, 0)
    finally:
        torch.set_num_threads(before)
    if "storage_error" in answer:
        raise UserError(
            f"cannot write {job.scratch}: {answer['storage_error'][1]}; free some space, or give another --out"
        )
    if "failed" in answer:
        raise UserError(f"the cell left no outcome: {answer['failed']}; look for what its method does to its files")
    outcome: dict[str, Any] = json.loads((Path(job.scratch) / "outcome.json").read_text())
    return outcome


@contextmanager
def as_worker(environment: Mapping[str, str]) -> Iterator[None]:
    """This process under the environment of a worker: no data folder, no cache, and marked, so that loading raw data is
    refused. Put back afterwards, whatever happens."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
