"""Prepared problems and their views on disk, shared by all cells of one (data set, split id, index)."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs
from gkdbench.protocol.view_io import write_bundle
from gkdbench.records.files import StorageError

SplitTaskId = tuple[str, str, int]
"""(data set, split id, index)."""


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A split task whose view lies on disk."""

    split_task: SplitTask
    evaluation_graphs: EvaluationGraphs
    view: Path


class DataPrefetcher:
    """Prepares problems ahead of the workers, in one thread, and drops them when the last cell is done.

    Args:
        folder: where views are written.
        data: raw files, or None for ``$GKDBENCH_DATA``.
        needed: one split task per cell that will run.
        wake: called (from the thread) when a split task is ready.
    """

    AHEAD = 3

    def __init__(
        self, folder: Path, data: Path | None, needed: Iterable[SplitTaskId], wake: Callable[[], None]
    ) -> None:
        self._folder, self._data, self._wake = folder, data, wake
        self._needed = Counter(needed)
        self._ready: dict[SplitTaskId, Future[PreparedData]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gkdbench-prepare")

    def request(self, names: Iterable[SplitTaskId]) -> None:
        """Prepare the first `AHEAD` different problems of `names` (one per waiting cell, in order), and no more."""
        next_ones: set[SplitTaskId] = set()
        for name in names:
            next_ones.add(name)
            if len(next_ones) > self.AHEAD:
                return
            if name not in self._ready:
                self._ready[name] = self._thread.submit(self._prepare, name)
                self._ready[name].add_done_callback(lambda _: self._wake())

    def get(self, name: SplitTaskId) -> PreparedData | None:
        """The prepared split task; None while it is not ready. What went wrong in preparing is raised here."""
        future = self._ready.get(name)
        return future.result() if future is not None and future.done() else None

    def add(self, name: SplitTaskId) -> None:
        """One more cell of `name` will run."""
        self._needed[name] += 1

    def done(self, name: SplitTaskId) -> None:
        """One cell of `name` has ended; after the last one its view is removed."""
        self._needed[name] -= 1
        if self._needed[name] <= 0 and (future := self._ready.pop(name, None)) is not None and not future.exception():
            shutil.rmtree(future.result().view, ignore_errors=True)

    def close(self) -> None:
        """Stop the thread and remove every view."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self, name: SplitTaskId) -> PreparedData:
        dataset, split, index = name
        split_task = prepare_named(dataset, split, index, data=self._data)
        view = self._folder / hashlib.sha256(f"{name}{split_task.hash}".encode()).hexdigest()[:16]
        try:
            return PreparedData(split_task, write_bundle(split_task, view), view)
        except OSError as error:
            raise StorageError(view, error) from error
