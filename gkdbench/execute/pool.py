"""The pool: the run's worker, the cells that it has under way, their limits, their deaths, and its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkdbench.execute.failures import tail_of
from gkdbench.execute.job import Job
from gkdbench.execute.processes.orphans import kill_marked
from gkdbench.execute.processes.replies import Died, Overdue, WorkerReply, how_ended, reply_of
from gkdbench.execute.processes.starters import Starter

GRACE_S = 10.0
"""Beyond a cell's time limit and a quarter of it, its process is killed: its method never checked the time."""
START_S = 60.0
"""Further time for a cell that starts as a new interpreter."""
HANG_S = 20.0
"""A worker that does not report a killed cell within this time is killed itself."""
MARK = "GKDBENCH_WORKER_ID"
"""Environment variable with a random word: what a dead worker's cells have left is found by it."""


@dataclass(eq=False)
class _Task:
    job: Job
    log: Path
    kill_at: float | None = None
    overdue: bool = False


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    ready: bool = False
    buffer: bytes = b""


@dataclass(eq=False)
class Pool:
    """At most `size` cells at a time, each in a process of its own that one worker starts; a worker that dies is
    replaced.

    Args:
        folder: where workers write their logs.
        environment: of `gkdbench.execute.processes.environment.worker_environment`.
        grace_s: see GRACE_S.
        starter: how the worker starts cells.
        threads: of one cell.
        hidden: folders that no cell may see.
    """

    size: int
    folder: Path
    environment: Mapping[str, str]
    grace_s: float = GRACE_S
    starter: Starter = "fork"
    threads: int = 1
    hidden: Iterable[Path] = ()
    _tasks: dict[int, _Task] = field(default_factory=dict)
    _worker: _Worker | None = None
    _started: int = 0

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    @property
    def running(self) -> int:
        """How many cells are under way."""
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many cells could be started now."""
        return self.size - self.running

    def start(self) -> None:
        """Start the worker if there is none; it imports while the caller prepares the first cells."""
        if self._worker is None:
            self._worker = self._start_worker()

    def submit(self, job: Job, log: Path) -> None:
        """Start a process for `job`, and a worker before it if there is none.

        Args:
            log: file that takes what the cell prints.
        """
        self._tasks[job.id] = _Task(job, log)
        self.start()
        assert self._worker is not None  # just started
        self._tell(self._worker, {"job": job.line().decode(), "log": str(log)})

    def wake(self) -> None:
        """End a `wait` early; callable from any thread."""
        try:
            os.write(self._wake_write, b".")
        except (BlockingIOError, OSError):
            return  # already awake, or closed

    def wait(self, timeout_s: float) -> list[tuple[Job, WorkerReply]]:
        """Answers that came in within `timeout_s` (at once, when there are any)."""
        deadlines = [task.kill_at for task in self._tasks.values() if task.kill_at is not None]
        if deadlines:
            timeout_s = max(0.0, min(timeout_s, min(deadlines) - time.monotonic()))
        answers: list[tuple[Job, WorkerReply]] = []
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                os.read(self._wake_read, 65536)
            elif self._worker is not None and key.data is self._worker:
                answers += self._read(self._worker)
        now = time.monotonic()
        for task in [task for task in self._tasks.values() if task.kill_at is not None and now > task.kill_at]:
            if self._worker is None:
                break
            if task.overdue:
                self._worker.process.kill()  # it hangs; its end is noticed like any other
            else:
                self._tell(self._worker, {"kill": task.job.id})
            task.overdue, task.kill_at = True, now + HANG_S
        return answers

    def close(self) -> None:
        """End the worker and all that it started, and wait for it."""
        if self._worker is not None:
            self._end(self._worker)
        self._tasks.clear()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _start_worker(self) -> _Worker:
        self._started += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        log, mark = self.folder / f"worker-{self._started}.log", os.urandom(16).hex()
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "gkdbench.execute.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(self.environment) | {MARK: mark},
                start_new_session=True,
            )
        worker = _Worker(process, mark, log)
        assert process.stdout is not None  # a pipe was requested
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        hidden = [str(folder) for folder in self.hidden]
        self._tell(worker, {"starter": self.starter, "threads": self.threads, "hidden": hidden})
        return worker

    def _tell(self, worker: _Worker, message: Mapping[str, Any]) -> None:
        assert worker.process.stdin is not None  # a pipe was requested
        with suppress(OSError):  # it has just died; noticed by the end of its reports
            worker.process.stdin.write(json.dumps(message).encode() + b"\n")
            worker.process.stdin.flush()

    def _read(self, worker: _Worker) -> list[tuple[Job, WorkerReply]]:
        assert worker.process.stdout is not None  # a pipe was requested
        data = os.read(worker.process.stdout.fileno(), 65536)
        if not data:
            return self._worker_died(worker)
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        answers: list[tuple[Job, WorkerReply]] = []
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                worker.ready = True
            elif (task := self._tasks.get(message.get("started", -1))) is not None:
                if task.job.time_limit_s is not None:
                    start = START_S if self.starter == "spawn" else 0.0
                    task.kill_at = time.monotonic() + start + 1.25 * task.job.time_limit_s + self.grace_s
            elif (task := self._tasks.pop(message.get("refused", -1), None)) is not None:
                answers.append((task.job, Died(f"a refusal to start ({message['why']})", True, "")))
            elif (task := self._tasks.pop(message.get("ended", -1), None)) is not None:
                found = reply_of(message["status"], message["answer"], task.log)
                answers.append((task.job, Overdue() if task.overdue else found))
        return answers

    def _worker_died(self, worker: _Worker) -> list[tuple[Job, WorkerReply]]:
        """Every cell under way died with its worker."""
        how = how_ended(self._end(worker))
        log = "" if worker.ready else tail_of(worker.log)
        tasks = list(self._tasks.values())
        self._tasks.clear()
        return [(task.job, Overdue() if task.overdue else Died(how, worker.ready, log)) for task in tasks]

    def _end(self, worker: _Worker) -> int:
        """End `worker` and what it started; how it ended."""
        self._worker = None
        process = worker.process
        assert process.stdout is not None and process.stdin is not None  # pipes were requested
        self._selector.unregister(process.stdout)
        with suppress(OSError):  # a job was still in the pipe of a dead worker
            process.stdin.close()  # a worker that lives kills its cells, and ends
        if worker.ready:
            with suppress(subprocess.TimeoutExpired):
                process.wait(HANG_S)
        process.kill()
        code = process.wait()
        process.stdout.close()
        kill_marked(f"{MARK}={worker.mark}")
        return code
