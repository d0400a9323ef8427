"""The worker: one process a run, which starts a process for every cell and ends with the run.

Started by the pool as ``python -m gkdbench.execute.worker``. It imports once what every cell needs and forks, so that a
cell starts warm and shares nothing with other cells; where a fork is unsafe (CUDA) or missing, it starts an interpreter
for each. It trains nothing, opens no data and computes nothing with several threads: a forked process could not use
threads that its parent had started.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from gkdbench.execute.job import Job
from gkdbench.execute.processes.cell_process import PARENT, Orders, import_method, signal_when_parent_ends, warm_up
from gkdbench.execute.processes.confine import can_confine
from gkdbench.execute.processes.orphans import adopt_orphans, kill_group, kill_orphans
from gkdbench.execute.processes.starters import Starter, answer_pipe, fork_cell, spawn_cell

CLEAN_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Child:
    """A cell under way.

    Args:
        number: of its job.
        answer: read end of the pipe for its answer.
        token: random word that the answer must hold.
    """

    number: int
    answer: int
    token: str


class Worker:
    """Starts cells as the pool asks for them, and reports how each ended.

    Args:
        orders: lines of JSON from the pool, read without a buffer.
        reports: file descriptor of lines of JSON to the pool.
        starter: how a cell is started.
        threads, hidden: see `gkdbench.execute.processes.cell_process.Orders`.
    """

    def __init__(
        self, orders: BinaryIO, reports: int, *, starter: Starter, threads: int, hidden: list[str] | None
    ) -> None:
        self._orders, self._reports = orders, reports
        self._start_process = fork_cell if starter == "fork" else spawn_cell
        self._threads, self._hidden = threads, hidden
        self._cells: dict[int, Child] = {}
        self._buffer, self._open = b"", True
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the pool is gone; nothing that this worker started is left then."""
        self._say({"ready": os.getpid()})
        with selectors.DefaultSelector() as selector:
            for source in (self._orders.fileno(), self._woken):
                selector.register(source, selectors.EVENT_READ)
            while self._open:
                ready = [key.fd for key, _ in selector.select()]
                if self._woken in ready:
                    with suppress(BlockingIOError):
                        os.read(self._woken, 65536)
                self._reap()
                if self._orders.fileno() in ready:
                    self._listen()
        self._end_all()

    def _stop(self, *_: object) -> None:
        self._open = False

    def _listen(self) -> None:
        data = os.read(self._orders.fileno(), 65536)
        self._open = self._open and bool(data)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "job" in message:
                self._start(Job.parse(message["job"]), message["log"])
            else:
                for pid in [pid for pid, child in self._cells.items() if child.number == message["kill"]]:
                    kill_group(pid)

    def _start(self, job: Job, log: str) -> None:
        (answer, written), token = answer_pipe(), os.urandom(16).hex()
        orders = Orders(job, written, token, os.getpid(), self._threads, self._hidden)
        if self._start_process is fork_cell:
            import_method(job.method)
        try:
            pid = self._start_process(orders, log)
        except OSError as error:  # no more processes, or no memory for one
            os.close(answer)
            os.close(written)
            self._say({"refused": job.id, "why": error.strerror or str(error)})
            return
        os.close(written)
        self._cells[pid] = Child(job.id, answer, token)
        self._say({"started": job.id})

    def _reap(self) -> None:
        """Report cells that ended; kill what they left."""
        while self._reap_one():
            kill_orphans(self._cells)

    def _reap_one(self) -> bool:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None:
            return False
        pid = ended.si_pid
        if pid in self._cells:
            kill_group(pid)  # while the process is a zombie, its number is not used again
        _, status = os.waitpid(pid, 0)
        child = self._cells.pop(pid, None)
        if child is not None:
            kill_orphans(self._cells)
            answer = read_answer(child)
            os.close(child.answer)
            self._say({"ended": child.number, "status": os.waitstatus_to_exitcode(status), "answer": answer})
        return True

    def _end_all(self) -> None:
        """Kill every cell and all that they started."""
        for pid in self._cells:
            kill_group(pid)
        deadline = time.monotonic() + CLEAN_UP_S
        while time.monotonic() < deadline:
            kill_orphans(())
            try:
                os.waitpid(-1, 0 if self._cells else os.WNOHANG)
            except ChildProcessError:
                return

    def _say(self, message: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the pool is gone: noticed by the end of the orders
            os.write(self._reports, json.dumps(message).encode() + b"\n")


PIPE_BYTES = 65536


def read_answer(child: Child) -> dict[str, Any] | None:
    """What the cell answered; None when it ended without an answer. Lines that others wrote into its pipe lack the
    token, and are passed over."""
    text = b""
    with suppress(BlockingIOError):  # what the cell left holds the other end
        while part := os.read(child.answer, PIPE_BYTES):
            text += part
    for line in text.splitlines():
        try:
            found = json.loads(line) if child.token.encode() in line else None
        except ValueError:
            continue
        if isinstance(found, dict) and found.pop("token", None) == child.token:
            return found
    return None


def _nothing(*_: object) -> None:
    """A handler that lets a signal wake the selector."""


def main() -> int:
    """Serve the pool on stdin and stdout, moved to descriptors of their own."""
    signal_when_parent_ends(signal.SIGTERM)
    if os.getppid() != int(os.environ[PARENT]):
        return 1
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides
    orders, reports = os.dup(0), os.dup(1)  # closed in every program that a cell starts
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    stream: BinaryIO = os.fdopen(orders, "rb", buffering=0)
    setup = json.loads(stream.readline())
    starter: Starter = setup["starter"]
    hidden = setup["hidden"] if can_confine() else None
    if starter == "fork":
        warm_up()
    Worker(stream, reports, starter=starter, threads=setup["threads"], hidden=hidden).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
