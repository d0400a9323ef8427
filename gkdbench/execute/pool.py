"""The pool: long-lived worker processes, their environment, their limits, their deaths."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkdbench.execute.failures import copy_printed
from gkdbench.execute.job import Job
from gkdbench.execute.worker import PARENT

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
"""Keeps freed memory in the process: page faults cost a third of a small cell's time otherwise (design decision 15)."""

GRACE_S = 10.0
"""Beyond a cell's time limit and a quarter of it, the worker is killed: its method never checked the time."""


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended while it had a job.

    Args:
        how: ``"SIGKILL"``, ``"exit status 3"``.
        ready: whether it had started up; False: it could not even begin.
        log: the last lines that it printed.
    """

    how: str
    ready: bool
    log: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """The worker was killed because the time limit and the grace had passed."""


WorkerReply = dict[str, Any] | Died | Overdue


def worker_environment(threads: int, *, tune_allocator: bool = True) -> dict[str, str]:
    """The environment of a worker: no way to the labels, thread counts fixed, hashing fixed."""
    hidden = ("GKDBENCH_DATA", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {
        "XDG_CACHE_HOME": "/nonexistent/gkdbench-worker",
        "GKDBENCH_WORKER": "1",
        PARENT: str(os.getpid()),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")},
    }
    return (ALLOCATOR | environment) if tune_allocator else environment


def allocator_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The ``MALLOC_*`` settings that a worker runs under."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith("MALLOC_")}


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    ready: bool = False
    job: Job | None = None
    kill_at: float | None = None
    buffer: bytes = b""


@dataclass(eq=False)
class Pool:
    """`size` workers, started when they are needed, replaced when they die.

    What a worker printed while it had a job is in the job's scratch folder when its answer comes, as
    `gkdbench.execute.failures.PRINTED`.

    Args:
        folder: where workers write their logs.
        environment: of `worker_environment`.
        grace_s: see GRACE_S.
    """

    size: int
    folder: Path
    environment: Mapping[str, str]
    grace_s: float = GRACE_S
    _workers: list[_Worker] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return sum(worker.job is not None for worker in self._workers)

    @property
    def free(self) -> int:
        """How many jobs could be given out now."""
        return self.size - self.running

    def submit(self, job: Job) -> None:
        """Give `job` to an idle worker, starting one if need be."""
        idle = next((worker for worker in self._workers if worker.job is None), None) or self._start()
        idle.job = job
        if idle.ready:
            self._send(idle)

    def wake(self) -> None:
        """End a `wait` early; callable from any thread."""
        try:
            os.write(self._wake_write, b".")
        except (BlockingIOError, OSError):
            return  # already awake, or closed

    def wait(self, timeout_s: float) -> list[tuple[Job, WorkerReply]]:
        """Answers that came in within `timeout_s` (at once, when there are any)."""
        deadlines = [worker.kill_at for worker in self._workers if worker.kill_at is not None]
        if deadlines:
            timeout_s = max(0.0, min(timeout_s, min(deadlines) - time.monotonic()))
        answers: list[tuple[Job, WorkerReply]] = []
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                os.read(self._wake_read, 65536)
            else:
                answers += self._read(key.data)
        now = time.monotonic()
        for worker in [w for w in self._workers if w.kill_at is not None and now > w.kill_at]:
            assert worker.job is not None  # a deadline is set only together with a job
            copy_printed(worker.log, Path(worker.job.scratch))
            answers.append((worker.job, Overdue()))
            self._end(worker)
        return answers

    def close(self) -> None:
        """Kill every worker and wait for it."""
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _start(self) -> _Worker:
        self._started += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"worker-{self._started}.log"
        with log.open("ab") as stderr:  # appending: `copy_printed` empties it between cells
            process = subprocess.Popen(
                [sys.executable, "-m", "gkdbench.execute.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(self.environment),
            )
        worker = _Worker(process, log)
        self._workers.append(worker)
        assert process.stdout is not None  # a pipe was requested
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _send(self, worker: _Worker) -> None:
        job = worker.job
        assert job is not None and worker.process.stdin is not None  # called with a job, on a pipe
        if job.time_limit_s is not None:
            worker.kill_at = time.monotonic() + 1.25 * job.time_limit_s + self.grace_s
        try:
            worker.process.stdin.write(job.line())
            worker.process.stdin.flush()
        except OSError:
            return  # it has just died; noticed by the end of file on stdout

    def _read(self, worker: _Worker) -> list[tuple[Job, WorkerReply]]:
        assert worker.process.stdout is not None  # a pipe was requested
        data = os.read(worker.process.stdout.fileno(), 65536)
        if not data:
            return self._dead(worker)
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        answers: list[tuple[Job, WorkerReply]] = []
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                worker.ready = True
                os.truncate(worker.log, 0)  # what imports printed belongs to no cell
                if worker.job is not None:
                    self._send(worker)
            elif worker.job is not None:
                copy_printed(worker.log, Path(worker.job.scratch))
                answers.append((worker.job, message))
                worker.job = worker.kill_at = None
        return answers

    def _dead(self, worker: _Worker) -> list[tuple[Job, WorkerReply]]:
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        tail = b"\n".join(worker.log.read_bytes().splitlines()[-20:]).decode(errors="replace")
        job = worker.job
        if job is not None:
            copy_printed(worker.log, Path(job.scratch))
        self._end(worker)
        return [] if job is None else [(job, Died(how, worker.ready, tail))]

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        assert worker.process.stdout is not None and worker.process.stdin is not None  # pipes were requested
        self._selector.unregister(worker.process.stdout)
        worker.process.kill()
        worker.process.wait()
        worker.process.stdout.close()
        with suppress(OSError):  # a job was still in the pipe of a dead worker
            worker.process.stdin.close()
