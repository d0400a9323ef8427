"""The run: cells to workers, replies to rows, one thread, in order. What dies loses at most the cells that are
running."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell
from gkdbench.execute.failures import drop_log, keep_log
from gkdbench.execute.job import Job, TeacherJob
from gkdbench.execute.kept_models import drop_other_models, keep_models
from gkdbench.execute.plan import Plan, bank_folder, has_weights
from gkdbench.execute.pool import Pool
from gkdbench.execute.prefetch import DataPrefetcher, PreparedData
from gkdbench.execute.processes.cell_folder import CellFolder, make_cell_folder, move_teacher
from gkdbench.execute.processes.environment import allocator_of
from gkdbench.execute.processes.replies import Died, Ended, Overdue, WorkerReply
from gkdbench.execute.progress import Progress
from gkdbench.execute.provenance import provenance
from gkdbench.execute.rows import DiskFull, command, ended_row, failed_row, killed_row, scored_row, unfit_row
from gkdbench.execute.texts import shortened
from gkdbench.printable import said
from gkdbench.protocol.scoring import Arrays
from gkdbench.records.files import StorageError, is_abandoned, owned_name, remove_if_empty
from gkdbench.records.schema import Row
from gkdbench.records.store import Store, is_settled

ATTEMPTS = 3
"""How often a cell is given to a worker before its death by signal becomes a row."""
POLL_S = 1.0


@dataclass
class RunSummary:
    """What a run did.

    Args:
        ok: cells that ran and have scores.
        cached: cells whose rows were there (or were finished by another process meanwhile).
        failures: (cell, row) of every cell that ran and has none.
        absent: lines on data sets whose files are not there.
        refused: lines on data sets that cannot be read or split.
        records: the group records that hold the plan's rows.
        without_model: cached cells whose model was requested and is not kept.
        set_aside: sentences on damaged files that were moved out of the way (see `gkdbench.records.damaged`).
        lost: cells of the plan that have no row because of that.
        seconds: wall-clock time of everything.
        planned_hours, planned_interval: what the plan said of it, 0 where nothing had to run.
    """

    ok: int = 0
    cached: int = 0
    failures: list[tuple[Cell, Row]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)
    without_model: int = 0
    set_aside: list[str] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0
    planned_hours: float = 0.0
    planned_interval: tuple[float, float] = (0.0, 0.0)

    @property
    def ran(self) -> int:
        return self.ok + len(self.failures)


class Interrupted(Exception):
    """The run was stopped by a signal; everything finished is stored.

    Args:
        summary: what was done until then.
        left: cells that remain.
        again: the command that goes on.
    """

    def __init__(self, summary: RunSummary, left: int, again: str) -> None:
        self.summary, self.left, self.again = summary, left, again
        super().__init__(
            f"interrupted: {summary.ran} cells done in this run, {summary.cached} were cached, {left} left; "
            f"go on with: {again}"
        )


@dataclass(eq=False)
class _RunningCell:
    cell: Cell
    ready: PreparedData
    folder: CellFolder


class Runner:
    """Runs a plan.

    Args:
        device: where workers compute (``cpu``, ``cuda:i``).
        prefetcher, pool: closed by the caller.
        folder: this run's scratch folder.
        keep_models: see `gkdbench.execute.kept_models`.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        prefetcher: DataPrefetcher,
        pool: Pool,
        progress: Progress,
        *,
        device: str,
        folder: Path,
        keep_models: bool = False,
    ) -> None:
        self._plan, self._store, self._prefetcher, self._pool, self._progress = plan, store, prefetcher, pool, progress
        self._device, self._folder, self._keep_models = device, folder, keep_models
        self._allocator = allocator_of(pool.environment)
        self._waiting: dict[str, Cell] = {cell.key: cell for cell in plan.todo}
        self._unsettled = set(self._waiting)
        self._retrain = {cell.key for cell in plan.again}
        self._rows_before = {cell.key: store.row(cell.address) for cell in plan.todo}
        self._in_group = Counter(cell.group.key for cell in plan.todo)
        self._running: dict[int, _RunningCell] = {}
        self._attempts: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._ids = 0
        self._stop = False
        self.summary = RunSummary(
            cached=len(plan.cached),
            absent=[str(line) for line in plan.absent if not line.why],
            refused=[str(line) for line in plan.absent if line.why],
        )

    def run(self) -> RunSummary:
        """Run all cells.

        Raises:
            Interrupted: SIGINT or SIGTERM came.
            StorageError: the output folder refused a write.
            UserError: a data set or a worker could not be prepared; a teacher did not reproduce its row.
        """
        with self._signals():
            while self._waiting or self._running:
                if self._stop:
                    again = f"gkdbench run {self._plan.suite.command_name} --out {self._store.out}"
                    raise Interrupted(self.summary, len(self._waiting) + len(self._running), again)
                self._prefetcher.request(cell.split_task for cell in self._waiting.values())
                self._dispatch()
                replies = self._pool.wait(POLL_S)
                self._progress.waiting()
                ended = [(self._running.pop(job.id), reply) for job, reply in replies]
                self._dispatch()  # first new work, then the scoring: workers do not wait for it
                for running, reply in ended:
                    self._handle_reply(running, reply)
        return self.summary

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM into a clean stop; a second SIGINT acts as always."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._pool.wake()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _dispatch(self) -> None:
        """Give out cells in order until every worker has one or none is ready."""
        while self._pool.free and not self._stop:
            found = next(self._startable(), None)
            if found is None:
                return
            self._launch(*found)

    def _startable(self) -> Iterator[tuple[Cell, PreparedData]]:
        now = time.monotonic()
        for cell in list(self._waiting.values()):
            teachers = cell.requires
            if any(teacher.key in self._unsettled for teacher in teachers.values()):
                continue
            if self._not_before.get(cell.key, 0.0) > now:
                continue
            try:
                ready = self._prefetcher.get(cell.split_task)
            except StorageError:
                raise
            except Exception as error:  # this split cannot be made: a row of each of its cells says so
                self._refuse(cell, error)
                continue
            if ready is not None and self._claim(cell) and self._teachers_ready(cell, teachers, ready):
                yield cell, ready

    def _refuse(self, cell: Cell, error: Exception) -> None:
        """A row for a cell whose data cannot be prepared."""
        if self._claim(cell):
            reason = shortened(said(error))
            row = failed_row(cell, self._plan.suite, None, status="error", phase="prepare", reason=reason)
            self._store_row(cell, row)

    def _claim(self, cell: Cell) -> bool:
        """Claim `cell`; when another process has it, look again later; when one has finished it, count it."""
        if not self._store.claim(cell.address):
            if cell.key not in self._not_before:
                self._progress.note(f"{cell}: claimed by {self._store.owner(cell.address)}; waiting for it")
            self._not_before[cell.key] = time.monotonic() + POLL_S
            return False
        row = self._store.row(cell.address)
        if cell.key in self._retrain:
            fresh = has_weights(self._store, cell, row)
        else:
            fresh = row is not None and row != self._rows_before[cell.key] and is_settled(row)
        if fresh:
            self.summary.cached += 1
            self._finish_cell(cell)
        return not fresh

    def _teachers_ready(self, cell: Cell, teachers: dict[str, Cell], ready: PreparedData) -> bool:
        """Whether all teachers have scores and weights; a cell whose teacher failed gets a row that says so."""
        for role, teacher in teachers.items():
            row = self._store.row(teacher.address)
            if row is None or row.status != "ok":
                how = "is missing" if row is None else f"ended with status {row.status} ({row.reason})"
                fix = command(teacher, self._plan.suite, failed=True)
                reason = f"its {role} {how}; repeat that first: {fix}"
                skipped = failed_row(cell, self._plan.suite, ready, status="skipped", phase="prepare", reason=reason)
                self._store_row(cell, skipped)
                return False
            if not has_weights(self._store, teacher, row):
                self._train_again(teacher)
                self._store.release(cell.address)
                return False
        return True

    def _train_again(self, teacher: Cell) -> None:
        """Another run finished `teacher` after this one was planned, and did not keep its weights."""
        self._retrain.add(teacher.key)
        self._unsettled.add(teacher.key)
        self._waiting = {teacher.key: teacher} | self._waiting
        self._in_group[teacher.group.key] += 1
        self._prefetcher.add(teacher.split_task)

    def _launch(self, cell: Cell, ready: PreparedData) -> None:
        self._ids += 1
        path = self._folder / "cells" / f"cell-{self._ids}"
        try:
            folder = make_cell_folder(path, ready.view, banks_of(cell, self._store))
        except OSError as error:
            raise StorageError(path, error) from error
        suite = self._plan.suite
        job = replace(
            job_of(cell, number=self._ids, folder=folder, device=self._device),
            bank=str(folder.teacher) if cell.key in self._plan.required else None,
            time_limit_s=suite.time_limit_s,
            memory_limit_bytes=suite.memory_limit_bytes,
            keep_weights=self._keep_models,
        )
        del self._waiting[cell.key]
        self._attempts[cell.key] += 1
        self._running[job.id] = _RunningCell(cell, ready, folder)
        self._pool.submit(job, folder.printed)
        self._progress.started(cell)

    def _handle_reply(self, running: _RunningCell, reply: WorkerReply) -> None:
        """Turn a reply into a row; a cell whose process was killed goes back to the front of the queue."""
        cell, suite = running.cell, self._plan.suite
        arrays: Arrays = {}
        if isinstance(reply, Died):
            if self._attempts[cell.key] < ATTEMPTS:
                self._progress.note(f"{cell}: its process ended by {reply.how}; trying again")
                self._store.release(cell.address)
                self._waiting = {cell.key: cell} | self._waiting
                running.folder.remove()
                return
            if not reply.ready:
                raise UserError(f"worker processes do not start ({reply.how}):\n{reply.log}")
            row = killed_row(cell, suite, running.ready, reply.how, self._attempts[cell.key], reply.log)
        elif isinstance(reply, Overdue):
            reason = f"no end {suite.time_limit_s} s (and the grace) after the start; its process was killed"
            row = failed_row(cell, suite, running.ready, status="timeout", phase="fit", reason=reason)
        elif isinstance(reply, Ended):
            row = ended_row(cell, suite, running.ready, reply.how, reply.log)
        elif "failed" in reply:
            row = ended_row(cell, suite, running.ready, str(reply["failed"]), "")
        elif "storage_error" in reply:
            raise StorageError(running.folder.work, OSError(*reply["storage_error"]))
        else:
            try:
                row, arrays = scored_row(cell, suite, running.ready, running.folder.work, str(reply.get("done")))
            except DiskFull as error:
                raise StorageError(running.folder.work, error) from error
        if row.status == "ok" and cell.key in self._plan.required and not self._bank(running, row):
            reason = "the model that it left for its students was changed or removed after it was written"
            row = failed_row(cell, suite, running.ready, status="error", phase="predict", reason=reason)
            arrays = {}
        if row.status != "ok":
            keep_log(self._store, cell, row, running.folder.printed)
        try:
            if cell.key in self._retrain:
                self._check_reproduced(cell, row)
                self._finish_cell(cell)
            else:
                self._store_row(cell, row, arrays)
                self._keep_model(running, row)
        finally:
            running.folder.remove()

    def _bank(self, running: _RunningCell, row: Row) -> bool:
        """Move the model of a cell that others require to the bank; False when it is not the one of `row`."""
        target = bank_folder(self._store, running.cell)
        try:
            return move_teacher(running.folder, target, row.models[0].weights_sha256)
        except OSError as error:
            raise StorageError(target, error) from error

    def _keep_model(self, running: _RunningCell, row: Row) -> None:
        """Keep the models of a cell whose row is stored; those of an earlier row go, and the log of a failure too."""
        cell = running.cell
        if row.status == "ok":
            drop_log(self._store, cell)
        if row.status == "ok" and self._keep_models:
            edge_width = running.ready.evaluation_graphs.graphs["observed"].edge_width
            several = running.ready.split_task.task.multi_label
            keep_models(self._store, cell, row, running.folder.work, edge_width, several)
        else:
            drop_other_models(self._store, cell, row)

    def _check_reproduced(self, cell: Cell, row: Row) -> None:
        """A teacher that was trained again must have the weights of its stored row.

        Raises:
            UserError: it has not.
        """
        stored = self._store.row(cell.address)
        assert stored is not None  # planned from it
        if row.status == "ok" and row.models[0].weights_sha256 == stored.models[0].weights_sha256:
            self.summary.ok += 1
            self._progress.finished(cell, row)
            return
        shutil.rmtree(bank_folder(self._store, cell), ignore_errors=True)
        got = row.models[0].weights_sha256[:12] if row.models else f"{row.status}: {row.reason}"
        raise UserError(
            f"{cell} was trained again for its students: expected the weights of its record, "
            f"{stored.models[0].weights_sha256[:12]}, got {got}: another machine, another torch or other code; its "
            f"students would learn from another teacher than the table's. Run the whole suite with a new --out"
        )

    def _store_row(self, cell: Cell, row: Row, arrays: Mapping[str, NDArray[np.generic]] | None = None) -> None:
        facts = provenance(type(cell.group.method), device=self._device, allocator=self._allocator)
        record = cell.group.record(row.model_copy(update={"provenance": 0}))
        record = record.model_copy(update={"provenances": [facts]})
        self._note_other_teacher(cell, row)
        try:
            self._store.write(record, arrays or {})
        except UserError:  # the folder refused
            raise
        except Exception as error:  # this row cannot be written
            row = unfit_row(cell, self._plan.suite, None, error)
            record = record.model_copy(update={"rows": [row.model_copy(update={"provenance": 0})]})
            self._store.write(record, {})
        if row.status == "ok":
            self.summary.ok += 1
        else:
            self.summary.failures.append((cell, row))
        self._finish_cell(cell)
        self._progress.finished(cell, row)

    def _note_other_teacher(self, cell: Cell, row: Row) -> None:
        """Say so when a teacher that is run again has other weights than its stored students learned from."""
        before = self._rows_before.get(cell.key)
        if not (before and before.models and row.models) or cell.key not in self._plan.required:
            return
        if before.models[0].weights_sha256 != row.models[0].weights_sha256:
            self._progress.note(
                f"{cell} has other weights than before: rows of its students are of the old ones; --rerun"
            )

    def _finish_cell(self, cell: Cell) -> None:
        """`cell` needs nothing any more: claim, view; a complete group is collected."""
        self._waiting.pop(cell.key, None)
        self._unsettled.discard(cell.key)
        self._store.release(cell.address)
        self._prefetcher.done(cell.split_task)
        self._in_group[cell.group.key] -= 1
        if self._in_group[cell.group.key] == 0:
            self._store.collect(cell.group.key)


def banks_of(cell: Cell, store: Store) -> dict[str, Path]:
    """Role -> folder of the bank, for every teacher of `cell`."""
    return {role: bank_folder(store, teacher) for role, teacher in cell.requires.items()}


def job_of(cell: Cell, *, number: int, folder: CellFolder, device: str) -> Job:
    """What the process of `cell` is told: without limits, and without keeping anything of it."""
    of = cell.group.identity
    teachers = {}
    for role, teacher in cell.requires.items():
        trained = teacher.group.identity
        teachers[role] = TeacherJob(str(folder.of_teacher(role)), trained.method, trained.config, teacher.seed)
    return Job(
        id=number,
        method=of.method,
        config=of.config,
        bundle=str(folder.view),
        scratch=str(folder.work),
        seed=cell.seed,
        device=device,
        audit_every=of.audit_every,
        teachers=teachers,
        sweeps=of.sweeps,
        selection=of.selection,
        later=str(folder.later) if folder.later.is_dir() else None,
    )


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """A folder of this run below ``.scratch``, not made yet; removed afterwards, as those of dead runs are before."""
    scratch = store.place(".scratch")
    for folder in scratch.glob("run~*"):
        if is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    own = scratch / f"run~{owned_name()}"
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        remove_if_empty(scratch)
