"""The Python interface: what the command line does, as functions."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gkdbench.errors import UserError
from gkdbench.execute.plan import Plan, make_plan
from gkdbench.execute.pool import GRACE_S, Pool, worker_environment
from gkdbench.execute.prefetch import Desk
from gkdbench.execute.progress import Progress, Silent
from gkdbench.execute.runner import Runner, RunSummary, drop_abandoned
from gkdbench.execute.select import parse_only
from gkdbench.execute.suite import Suite, Tier, load_suite
from gkdbench.records.files import owned_name
from gkdbench.records.store import Store

if TYPE_CHECKING:
    from gkdbench.execute.cell import Cell

OUT = "gkdbench-runs"
"""Where results go unless told otherwise."""


def plan_suite(
    suite: str | Path | Suite,
    *,
    out: str | Path = OUT,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    only: str | Mapping[str, str] | None = None,
    retry: bool = False,
    max_cells: int | None = None,
    tier: Tier | None = None,
) -> Plan:
    """What `run_suite` with the same arguments would do. Trains nothing, writes nothing."""
    return make_plan(
        load_suite(suite),
        Store(out),
        data=None if data is None else Path(data),
        device=device_class(pick_device(device)),
        threads=threads,
        jobs=job_count(jobs, threads),
        only=parse_only(only) if only is None or isinstance(only, str) else only,
        tier=tier,
        retry=retry,
        max_cells=max_cells,
    )


def run_suite(
    suite: str | Path | Suite,
    *,
    out: str | Path = OUT,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    only: str | Mapping[str, str] | None = None,
    retry: bool = False,
    max_cells: int | None = None,
    tier: Tier | None = None,
    progress: Progress | None = None,
    tune_allocator: bool = True,
    grace_s: float = GRACE_S,
) -> RunSummary:
    """Run what is missing of a suite, the rows that wait for their trials after those. Giving the same call again goes
    on where the last one ended.

    Args:
        suite: ``smoke``, a published name (``node-small@1``), a TOML file, or a Suite.
        out: folder of the records.
        jobs: worker processes; default: one per core that the threads leave.
        threads: per worker; default: the suite's.
        device: ``auto``, ``cpu`` or ``cuda:i``.
        data: folder of raw files; default: ``$GKDBENCH_DATA``.
        only: ``"method=glnn,seed=3"``, or the same as a mapping.
        retry: run failed cells again.
        max_cells: stop after so many.
        tier: ``"core"`` leaves out what the suite marks ``full``.
        progress: takes the events; default: silence.
        tune_allocator: run workers under the ``MALLOC_*`` settings of `gkdbench.execute.pool.ALLOCATOR`.
        grace_s: how long beyond its time limit a cell may take before its worker is killed.

    Raises:
        UserError: bad input, an output folder that refuses, a worker that cannot start.
        Interrupted: stopped by a signal; finished cells are stored.
    """
    began = time.monotonic()
    loaded, progress = load_suite(suite), progress or Silent()
    where, store = pick_device(device), Store(out)
    count = job_count(jobs, threads)

    def planned() -> Plan:
        return plan_suite(
            loaded, out=out, jobs=count, threads=threads, device=where, data=data, only=only, retry=retry,
            max_cells=max_cells, tier=tier,
        )  # fmt: skip

    plan = planned()
    folder_of_data = None if data is None else Path(data)
    summary = _run(plan, store, progress, count, where, threads, folder_of_data, tune_allocator, grace_s)
    if plan.waiting and max_cells is None and (rest := planned()).waiting < plan.waiting:
        done, plan = summary, rest
        summary = _run(plan, store, progress, count, where, threads, folder_of_data, tune_allocator, grace_s)
        summary.ok, summary.failures = summary.ok + done.ok, [*done.failures, *summary.failures]
    summary.records = _records(store, [*plan.todo, *plan.cached])
    summary.seconds = time.monotonic() - began
    return summary


def _run(
    plan: Plan,
    store: Store,
    progress: Progress,
    jobs: int,
    device: str,
    threads: int | None,
    data: Path | None,
    tune_allocator: bool,
    grace_s: float,
) -> RunSummary:
    """Run the cells of one plan."""
    progress.planned(plan, jobs)
    store.open()
    scratch = store.out / ".scratch"
    drop_abandoned(scratch)
    folder = scratch / f"run~{owned_name()}"
    environment = worker_environment(threads or plan.suite.threads, tune_allocator=tune_allocator)
    pool = Pool(min(jobs, max(len(plan.todo), 1)), folder, environment, grace_s)
    desk = Desk(folder / "views", data, [cell.problem for cell in plan.todo], pool.wake)
    runner = Runner(plan, store, desk, pool, progress, device=device, folder=folder)
    try:
        runner.run()
    finally:
        pool.close()
        desk.close()
        shutil.rmtree(folder, ignore_errors=True)
        _remove_if_empty(scratch)
        store.close()
        progress.ended()
        _collect(store, plan)
    return runner.summary


def _collect(store: Store, plan: Plan) -> None:
    for key in dict.fromkeys(cell.group.key for cell in [*plan.todo, *plan.cached]):
        store.collect(key)


def _records(store: Store, cells: list[Cell]) -> list[Path]:
    paths = dict.fromkeys(store.out / cell.group.address.path for cell in cells)
    return [path for path in paths if path.exists()]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # another run is using it


def pick_device(device: str) -> str:
    """``cpu`` or ``cuda:i`` from ``auto``, ``cpu``, ``cuda``, ``cuda:i``.

    Raises:
        UserError: another word, or a GPU that is not there.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UserError(f"device wants auto, cpu or cuda:i, got {device!r}")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    return f"cuda:{number or 0}"


def device_class(device: str) -> str:
    """What of a device belongs to a cell's key: ``cpu``, or the GPU's name."""
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name(device)


def job_count(jobs: int | None, threads: int | None) -> int:
    """`jobs`, or as many as there are cores for.

    Raises:
        UserError: less than one.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{name} wants 1 or more, got {value}")
    return jobs or max(1, len(os.sched_getaffinity(0)) // (threads or 1))
