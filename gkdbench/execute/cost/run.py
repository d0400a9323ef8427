"""The run of a cost suite: short teachers first, by as many workers as there are; then one measurement at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gkdbench.errors import UserError
from gkdbench.execute.api import RunSettings, device_class, pick_device, run_plan
from gkdbench.execute.cell import Cell
from gkdbench.execute.cost.cells import MeasuredCell, measured_cells
from gkdbench.execute.device_lock import device_use
from gkdbench.execute.plan import Plan, has_weights
from gkdbench.execute.pool import Pool
from gkdbench.execute.prefetch import DataPrefetcher, PreparedData
from gkdbench.execute.processes.cell_folder import make_cell_folder
from gkdbench.execute.processes.confine import hidden_folders
from gkdbench.execute.processes.environment import allocator_of, worker_environment
from gkdbench.execute.processes.replies import Died, Ended, Overdue, WorkerReply
from gkdbench.execute.processes.starters import starter_for
from gkdbench.execute.progress import Progress
from gkdbench.execute.provenance import provenance
from gkdbench.execute.runner import banks_of, job_of, scratch_folder
from gkdbench.execute.suite import Suite
from gkdbench.execute.texts import shortened
from gkdbench.measure.cost.references import reference_names
from gkdbench.measure.cost.session import FILE, MeasureSettings
from gkdbench.records.damaged import DamagedFiles
from gkdbench.records.measurement import Measurement, write_measurement
from gkdbench.records.store import Store

TEACHERS = ".cost-teachers"
"""Folder below the results for teachers that were trained for a few epochs; safe to remove."""


@dataclass
class CostSummary:
    """What a run of a cost suite did.

    Args:
        ok: measurements taken.
        cached: measurements that were there.
        failures: (cell, why) of those that have none.
        noisy: of those taken, how many carry a flag of noise.
        absent: lines on data sets whose files are not there.
        records: files of all measurements of the suite.
    """

    ok: int = 0
    cached: int = 0
    noisy: int = 0
    failures: list[tuple[MeasuredCell, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)


def run_cost_suite(
    suite: Suite,
    *,
    out: Path,
    data: Path | None,
    device: str,
    threads: int | None,
    jobs: int,
    only: dict[str, str] | None,
    retry: bool,
    retry_noisy: bool,
    rerun: bool,
    max_cells: int | None,
    progress: Progress,
    settings: MeasureSettings | None = None,
) -> CostSummary:
    """Take the measurements of `suite` that are missing below `out`; giving the same call again goes on.

    Args:
        jobs: workers that train the teachers; measurements run one at a time.
        retry, retry_noisy: measure again what failed, what was noisy.
        rerun: measure everything again.
        settings: how long to measure.

    Raises:
        UserError: bad input, or an output folder that refuses.
    """
    where, count = pick_device(device), threads or suite.threads
    cells, absent = measured_cells(suite, Store(out), data=data, device=device_class(where), threads=count, only=only)
    for line in set_aside(cells, out):
        progress.note(line)
    todo = [cell for cell in cells if rerun or _missing(cell, out, retry, retry_noisy)][:max_cells]
    summary = CostSummary(cached=len(cells) - len(todo), absent=[str(line) for line in absent])
    for line in summary.absent:
        progress.note(line)
    progress.note(f"suite {suite.full_name}: {len(cells)} measurements, {summary.cached} cached, {len(todo)} to take")
    store = Store(out / TEACHERS)
    run = RunSettings(jobs=jobs, device=where, threads=count, data=data)
    _train_teachers(suite, todo, store, progress, run)
    if todo:  # nothing to measure waits for nobody
        with device_use(where, alone=True, tell=progress.note):
            _Measurer(suite, store, out, summary, progress, run, settings or MeasureSettings()).measure(todo)
    summary.records = [out / cell.path for cell in cells if (out / cell.path).exists()]
    return summary


def set_aside(cells: Sequence[MeasuredCell], out: Path) -> list[str]:
    """Move damaged measurements of `cells` to a folder of their own, so that they are taken again; a line for each."""
    damaged = DamagedFiles(out)
    for cell in cells:
        try:
            cell.stored(out)
        except UserError as error:
            damaged.put_aside([out / cell.path], error)
    return damaged.told


def _missing(cell: MeasuredCell, out: Path, retry: bool, retry_noisy: bool) -> bool:
    found = cell.stored(out)
    return found is None or (retry and found.status != "ok") or (retry_noisy and found.noisy)


def _train_teachers(
    suite: Suite, todo: Sequence[MeasuredCell], store: Store, progress: Progress, run: RunSettings
) -> None:
    """Train what `todo` requires and is not in the bank of `store`."""
    needed: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        for teacher in cell.requires.values():
            add(teacher)
            needed.setdefault(teacher.key, teacher)

    for cell in todo:
        add(cell.short)
    missing = [cell for cell in needed.values() if not has_weights(store, cell, store.row(cell.address))]
    stored = [cell for cell in missing if (row := store.row(cell.address)) is not None and row.status == "ok"]
    if missing:
        plan = Plan(suite, missing, [], stored, frozenset(needed), [], 0, 0.0, len(missing), 0)
        run_plan(plan, store, progress, run)


class _Measurer:
    """Takes measurements one after the other, each in a process of its own."""

    def __init__(
        self,
        suite: Suite,
        store: Store,
        out: Path,
        summary: CostSummary,
        progress: Progress,
        run: RunSettings,
        settings: MeasureSettings,
    ) -> None:
        self._suite, self._store, self._out, self._summary = suite, store, out, summary
        self._progress, self._run, self._settings = progress, run, settings
        self._threads = run.threads or suite.threads
        self._environment = worker_environment(self._threads)

    def measure(self, todo: Sequence[MeasuredCell]) -> None:
        """Take the measurements of `todo`, each stored at once."""
        if not todo:
            return
        self._store.open()
        try:
            with scratch_folder(self._store) as folder:
                hidden = hidden_folders(self._out, self._run.data, [cell.identity.dataset for cell in todo])
                pool = Pool(
                    1, folder, self._environment,
                    starter=starter_for(self._run.device), threads=self._threads, hidden=hidden,
                )  # fmt: skip
                wanted = [cell.short.split_task for cell in todo]
                prefetcher = DataPrefetcher(folder / "views", self._run.data, wanted, pool.wake)
                try:
                    for number, cell in enumerate(todo, start=1):
                        began = time.monotonic()
                        line = self._one(cell, number, folder, pool, prefetcher)
                        self._progress.note(f"[{number}/{len(todo)}] {cell}: {line} ({time.monotonic() - began:.0f} s)")
                finally:
                    pool.close()
                    prefetcher.close()
        finally:
            self._store.close()

    def _one(self, cell: MeasuredCell, number: int, folder: Path, pool: Pool, prefetcher: DataPrefetcher) -> str:
        teachers = cell.short.requires
        lost = [one for one in teachers.values() if not has_weights(self._store, one, self._store.row(one.address))]
        if lost:
            row = self._store.row(lost[0].address)
            why = f"its teacher failed: {lost[0]}: {row.reason if row else 'no row'}"
            return self._store_failure(cell, "error", why)
        ready = _prepared(prefetcher, pool, cell)
        own = make_cell_folder(folder / "cells" / f"cell-{number}", ready.view, banks_of(cell.short, self._store))
        job = replace(
            job_of(cell.short, number=number, folder=own, device=self._run.device),
            time_limit_s=self._suite.time_limit_s,
            memory_limit_bytes=self._suite.memory_limit_bytes,
            measure=self._settings.facts(),
        )
        try:
            pool.submit(job, own.printed)
            replies: list[Any] = []
            while not replies:
                replies = pool.wait(1.0)
            return self._store_reply(cell, replies[0][1], own.work)
        finally:
            own.remove()
            prefetcher.done(cell.short.split_task)

    def _store_reply(self, cell: MeasuredCell, reply: WorkerReply, work: Path) -> str:
        if isinstance(reply, Overdue):
            return self._store_failure(cell, "timeout", "no end after its time limit; its process was killed")
        if isinstance(reply, (Died, Ended)):
            return self._store_failure(cell, "error", f"its process ended by {reply.how}")
        if "done" not in reply:
            return self._store_failure(cell, "error", str(reply.get("failed") or reply.get("storage_error")))
        outcome = json.loads((work / "outcome.json").read_text())
        if outcome["status"] != "ok":
            return self._store_failure(cell, outcome["status"], str(outcome["reason"]))
        try:
            facts = json.loads((work / FILE).read_text())
            found = Measurement.model_validate(self._described(cell) | {"status": "ok"} | facts)
        except (OSError, ValueError, ValidationError) as error:
            return self._store_failure(cell, "error", f"it left no valid measurement: {error}")
        write_measurement(self._out, found)
        self._summary.ok += 1
        self._summary.noisy += found.noisy
        return "; ".join(["ok", *found.flags])

    def _store_failure(self, cell: MeasuredCell, status: str, why: str) -> str:
        facts = self._described(cell) | {"status": status, "reason": shortened(why)}
        write_measurement(self._out, Measurement.model_validate(facts))
        self._summary.failures.append((cell, why))
        return f"{status}: {shortened(why)}"

    def _described(self, cell: MeasuredCell) -> dict[str, Any]:
        of, group = cell.identity, cell.cell.group
        answers, epochs = reference_names("graph" if group.identity.setting == "graph" else "node")
        facts = provenance(type(group.method), device=self._run.device, allocator=allocator_of(self._environment))
        return {
            "key": of.key,
            "method": of.method,
            "label": group.method.label,
            "config": of.config,
            "revisions": of.revisions,
            "dataset": of.dataset,
            "data": group.data,
            "split": of.split,
            "setting": group.identity.setting,
            "index": of.index,
            "seed": of.seed,
            "device": of.device,
            "threads": of.threads,
            "reference": answers,
            "training_reference": epochs,
            "provenance": facts,
            "finished": datetime.now(UTC).isoformat(),
        }


def _prepared(prefetcher: DataPrefetcher, pool: Pool, cell: MeasuredCell) -> PreparedData:
    """The view of `cell`, waited for: nothing is measured while data are prepared."""
    prefetcher.request([cell.short.split_task])
    while (ready := prefetcher.get(cell.short.split_task)) is None:
        pool.wait(1.0)
    return ready
