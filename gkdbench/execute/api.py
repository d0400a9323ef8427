"""The Python interface: what the command line does, as functions."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.execute.device_lock import device_use
from gkdbench.execute.inline_suite import Methods, suite_of
from gkdbench.execute.kept_models import model_folder
from gkdbench.execute.plan import Plan, make_plan
from gkdbench.execute.pool import GRACE_S, Pool
from gkdbench.execute.prefetch import DataPrefetcher
from gkdbench.execute.processes.confine import hidden_folders
from gkdbench.execute.processes.environment import worker_environment
from gkdbench.execute.processes.starters import starter_for
from gkdbench.execute.progress import Progress, Silent
from gkdbench.execute.runner import Runner, RunSummary, scratch_folder
from gkdbench.execute.select import parse_only
from gkdbench.execute.suite import Suite, Tier
from gkdbench.records.store import Store

if TYPE_CHECKING:
    from gkdbench.data.task import Task
    from gkdbench.execute.cell import Cell

OUT = "gkdbench-runs"
"""Default folder of results."""


def plan_suite(
    suite: str | Path | Suite | None = None,
    *,
    methods: Methods | None = None,
    task: Task | None = None,
    dataset: str | None = None,
    split: str | None = None,
    seeds: str | int | Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = OUT,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    only: str | Mapping[str, str] | None = None,
    retry: bool = False,
    rerun: bool = False,
    max_cells: int | None = None,
    tier: Tier | None = None,
) -> Plan:
    """What `run_suite` with the same arguments would do. Trains nothing, writes nothing."""
    given = dict(locals())
    if task is not None:
        with _named(task, dataset, split) as names:
            return plan_suite(**(given | names))
    loaded = suite_of(suite, methods=methods, dataset=dataset, split=split, seeds=seeds, overrides=overrides)
    return _plan(loaded, Store(out), data, device, jobs, threads, only, tier, retry, rerun, (), max_cells)


def _plan(
    suite: Suite,
    store: Store,
    data: str | Path | None,
    device: str,
    jobs: int | None,
    threads: int | None,
    only: str | Mapping[str, str] | None,
    tier: Tier | None,
    retry: bool,
    rerun: bool,
    done: Collection[str],
    max_cells: int | None,
) -> Plan:
    return make_plan(
        suite,
        store,
        data=None if data is None else Path(data),
        device=device_class(pick_device(device)),
        threads=threads,
        jobs=job_count(jobs, threads),
        only=parse_only(only) if only is None or isinstance(only, str) else only,
        tier=tier,
        retry=retry,
        rerun=rerun,
        done=done,
        max_cells=max_cells,
    )


def run_suite(
    suite: str | Path | Suite | None = None,
    *,
    methods: Methods | None = None,
    task: Task | None = None,
    dataset: str | None = None,
    split: str | None = None,
    seeds: str | int | Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = OUT,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    only: str | Mapping[str, str] | None = None,
    retry: bool = False,
    rerun: bool = False,
    max_cells: int | None = None,
    tier: Tier | None = None,
    keep_models: bool = False,
    progress: Progress | None = None,
    tune_allocator: bool = True,
    grace_s: float = GRACE_S,
) -> RunSummary:
    """Run what is missing of a suite, the rows that wait for their trials after those. Giving the same call again goes
    on where the last one ended.

        gkdbench.run("node-small@1", only="method=glnn")
        gkdbench.run(methods=["glnn", {"method": "kd", "lr": 0.005}], dataset="cora", seeds="0:3")
        gkdbench.run(methods=["glnn"], task=Task.from_pyg(data, "mine"))

    Args:
        suite: ``smoke``, a published name (``node-small@1``), a TOML file, or a Suite; or else give `methods`.
        methods: names of methods, or mappings of a name and hyper-parameters; with `dataset` or `task`, in place of a
            suite.
        task: one's own graph (`Task.from_arrays`, `Task.from_pyg`), in place of `dataset`. Its rows name the command
            of a data set that only this process knows: the same call runs them again.
        dataset: the data set of `methods`.
        split: their split id; default: the first one of the data set (`gkdbench list datasets`); of a task, the one
            that it brought, else 80 / 10 / 10 percent.
        seeds: their training seeds, ``"0:3"`` (the default), one seed, or several.
        overrides: hyper-parameters of all `methods`; what a method's own mapping gives comes first.
        out: folder of the records.
        jobs: cells at a time, each in a process of its own; default: one per core that the threads leave.
        threads: per cell; default: the suite's.
        device: ``auto``, ``cpu`` or ``cuda:i``.
        data: folder of raw files; default: ``$GKDBENCH_DATA``.
        only: ``"method=glnn,seed=3"``, or the same as a mapping.
        retry: run failed cells again.
        rerun: run the suite's cells (of them, those of `only`) again although they have rows, and replace the rows.
            Teachers that the suite does not list are run again only when `only` names their method or key.
        max_cells: stop after so many.
        tier: ``"core"`` leaves out what the suite marks ``full``.
        keep_models: keep the selected weights of every model that is trained, see `gkdbench.load_model`. Cells that
            have rows already are not trained for it.
        progress: takes the events; default: silence.
        tune_allocator: run workers under the ``MALLOC_*`` settings of
            `gkdbench.execute.processes.environment.ALLOCATOR`.
        grace_s: how long beyond its time limit a cell may take before its process is killed.

    Raises:
        UserError: bad input, an output folder that refuses, a worker that cannot start.
        Interrupted: stopped by a signal; finished cells are stored.
    """
    given = dict(locals())
    if task is not None:
        with _named(task, dataset, split) as names:
            return run_suite(**(given | names))
    began = time.monotonic()
    loaded = suite_of(suite, methods=methods, dataset=dataset, split=split, seeds=seeds, overrides=overrides)
    if loaded.measures == "cost":
        raise UserError(
            f"suite {loaded.full_name}: expected one that measures accuracy, got one that measures cost; "
            f"try gkdbench.execute.cost.run.run_cost_suite, or `gkdbench run {loaded.command_name}`"
        )
    progress = progress or Silent()
    where, store = pick_device(device), Store(out, mends=True)
    count = job_count(jobs, threads)

    def planned(done: Collection[str] = ()) -> Plan:
        return _plan(loaded, store, data, where, count, threads, only, tier, retry, rerun, done, max_cells)

    plan = planned()
    hours, low, high = plan.hours, *plan.interval
    settings = RunSettings(
        jobs=count,
        device=where,
        threads=threads,
        data=None if data is None else Path(data),
        tune_allocator=tune_allocator,
        grace_s=grace_s,
        keep_models=keep_models,
    )
    summary = run_plan(plan, store, progress, settings)
    if plan.waiting and max_cells is None:
        rest = planned({cell.key for cell in plan.todo})
        if rest.waiting < plan.waiting:
            done, plan = summary, rest
            hours, low, high = hours + rest.hours, low + rest.interval[0], high + rest.interval[1]
            summary = run_plan(plan, store, progress, settings)
            summary.ok, summary.failures = summary.ok + done.ok, [*done.failures, *summary.failures]
    summary.records = _records(store, [*plan.todo, *plan.cached])
    summary.without_model = sum(not model_folder(store, cell).is_dir() for cell in plan.cached) if keep_models else 0
    if store.damaged.told:
        summary.set_aside = list(store.damaged.told)
        summary.lost = sum(store.row(cell.address) is None for cell in [*plan.todo, *plan.cached])
    summary.seconds = time.monotonic() - began
    summary.planned_hours, summary.planned_interval = hours, (low, high)
    return summary


@contextmanager
def _named(task: Task, dataset: str | None, split: str | None) -> Iterator[dict[str, Any]]:
    """Arguments that name `task` as a data set, for as long as the context lasts.

    Raises:
        UserError: a data set is given, too, `task` is no Task, or its name is taken.
    """
    from gkdbench.data.datasets import known_as
    from gkdbench.data.splits import first_split
    from gkdbench.data.task import Task

    if dataset is not None:
        raise UserError(f"expected a task or the name of a data set, got both (dataset {dataset!r}); leave one out")
    if not isinstance(task, Task):
        raise UserError(f"task: expected a Task, got a {type(task).__name__}; try Task.from_arrays or Task.from_pyg")
    with known_as(task) as name:
        yield {"task": None, "dataset": name, "split": split or first_split(task)}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the cells of a plan are run; see `run_suite`, whose arguments they are."""

    jobs: int
    device: str
    threads: int | None = None
    data: Path | None = None
    tune_allocator: bool = True
    grace_s: float = GRACE_S
    keep_models: bool = False


def run_plan(plan: Plan, store: Store, progress: Progress, settings: RunSettings) -> RunSummary:
    """Run the cells of one plan.

    Raises:
        UserError, Interrupted: as `run_suite`.
    """
    with device_use(settings.device, alone=False, tell=progress.note):
        return _run_plan(plan, store, progress, settings)


def _run_plan(plan: Plan, store: Store, progress: Progress, settings: RunSettings) -> RunSummary:
    progress.planned(plan, settings.jobs)
    threads, starter = settings.threads or plan.suite.threads, starter_for(settings.device)
    environment = worker_environment(threads, tune_allocator=settings.tune_allocator)
    store.open()
    try:
        with scratch_folder(store) as folder:
            size = min(settings.jobs, max(len(plan.todo), 1))
            datasets = {cell.group.identity.dataset for cell in plan.todo}
            hidden = hidden_folders(store.out, settings.data, datasets)
            pool = Pool(size, folder, environment, settings.grace_s, starter=starter, threads=threads, hidden=hidden)
            if plan.todo:
                pool.start()
            wanted = [cell.split_task for cell in plan.todo]
            prefetcher = DataPrefetcher(folder / "views", settings.data, wanted, pool.wake)
            runner = Runner(
                plan, store, prefetcher, pool, progress,
                device=settings.device, folder=folder, keep_models=settings.keep_models,
            )  # fmt: skip
            try:
                runner.run()
            finally:
                pool.close()
                prefetcher.close()
    finally:
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


def pick_device(device: str) -> str:
    """``cpu`` or ``cuda:i`` from ``auto``, ``cpu``, ``cuda``, ``cuda:i``.

    Raises:
        UserError: another word, or a GPU that does not exist.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UserError(f"device: expected auto, cpu or cuda:i, got {device!r}")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device: expected one of {torch.cuda.device_count()} CUDA devices, got {device!r}; use cpu")
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
            raise UserError(f"{name}: expected 1 or more, got {value}")
    return jobs or max(1, len(os.sched_getaffinity(0)) // (threads or 1))
