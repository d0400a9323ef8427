"""What the process of one cell does, from its first instruction to its last: it trains the cell, answers, and ends.

The worker (`gkdbench.execute.worker`) forks it, or starts this module as a program with its orders on stdin. Both ways
lead to `run_cell`.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import hashlib
import json
import os
import signal
import sys
import traceback as tb
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gkdbench.execute.job import Job
from gkdbench.execute.processes.confine import confine
from gkdbench.execute.processes.memory import address_space_bytes, memory_limit, reset_peak_memory
from gkdbench.execute.texts import shortened

if TYPE_CHECKING:
    from gkdbench.protocol.session import RunOutcome
    from gkdbench.registry import Entry

PARENT = "GKDBENCH_PARENT"
ANSWER_BYTES = 4000
"""A pipe takes so many at once, or none."""
_PR_SET_PDEATHSIG = 1
_warm = False
_NEEDED = ("gkdbench.protocol.session", "gkdbench.training", "gkdbench.training.resolve", "gkdbench.measure.energy")


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker tells the process of a cell.

    Args:
        job: the cell.
        answer: file descriptor of the write end of the pipe for the answer.
        token: random word that the answer must hold; no method is handed it.
        parent: process id of the worker.
        threads: of torch, for one cell.
        hidden: folders that the cell must not see; None where the kernel cannot hide any.
    """

    job: Job
    answer: int
    token: str
    parent: int
    threads: int
    hidden: Sequence[str] | None = None

    def line(self) -> bytes:
        """As one line of JSON."""
        facts = {name: getattr(self, name) for name in ("answer", "token", "parent", "threads", "hidden")}
        return json.dumps(facts | {"job": self.job.line().decode()}).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Orders:
        """The inverse of `line`."""
        facts = json.loads(line)
        return cls(**facts | {"job": Job.parse(facts["job"])})


def run_cell(orders: Orders) -> NoReturn:
    """Train the cell in this process, which has one thread, its output in a log and nothing on stdin; then end.

    What lives in this process is gone with it: no setting, patch, limit or handler of a method reaches another cell.
    """
    die_with(orders.parent)
    os.environ.pop(PARENT, None)
    faulthandler.enable()  # the log of a cell that crashed ends with the line
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the run decides
    sys.breakpointhook = refuse_breakpoint
    job = _hide(orders)
    die_with(orders.parent)  # entering a user namespace may have cancelled it
    os.chdir(job.scratch)
    os.environ["PWD"] = job.scratch
    os.environ.pop("OLDPWD", None)
    warm_up()
    import torch

    torch.set_num_threads(orders.threads)
    answer = serve(job, address_space_bytes())
    text = json.dumps({"token": orders.token} | answer).encode()
    with suppress(OSError):  # the method closed the file: no answer, and the row says so
        os.write(orders.answer, b"\n" + text[:ANSWER_BYTES] + b"\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the method may have closed or replaced it
            stream.flush()
    os._exit(0)  # threads and exit handlers of the method are not waited for


def _hide(orders: Orders) -> Job:
    """Hide what the cell must not see; its job, with `later` as a path that works from here on."""
    job = orders.job
    if orders.hidden is None:
        return job
    own, later = Path(job.scratch).parent, Path(job.later) if job.later else None
    found = confine([Path(folder) for folder in orders.hidden], own, later)
    return replace(job, later=f"/proc/self/fd/{found}") if found is not None and found >= 0 else job


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the process `parent` dies (Linux); end at once when it is dead already."""
    signal_when_parent_ends(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def signal_when_parent_ends(number: signal.Signals) -> None:
    """Ask the kernel for a signal at the end of the parent (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def refuse_breakpoint(*_: Any, **__: Any) -> None:
    """What ``breakpoint()`` does in the process of a cell.

    Raises:
        RuntimeError: always; it has no terminal.
    """
    raise RuntimeError("breakpoint() in a worker, which has no terminal; try `gkdbench run ... --debug CELL`")


def warm_up() -> None:
    """Import now what every job needs, so that neither a cell's time nor its memory limit pays for it.

    Nothing here depends on a cell, no module of a third party is imported, and no second thread is started: forked
    processes could not use it. ``GKDBENCH_WORKER_COLD=1`` leaves out what only training needs, for runs of few cells.
    A fork of a process that is warm has nothing left to do.
    """
    global _warm
    if _warm:
        return
    _warm = True
    import torch

    torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)  # refuses a second call
    for module in _NEEDED:
        import_module(module)
    from gkdbench.metrics.registry import METRICS
    from gkdbench.nn.backbones import BACKBONES
    from gkdbench.training.registry import METHODS

    METHODS.entries()  # names and sources are read; a method is imported when a cell needs it
    for entry in METRICS.entries().values():
        _load_own(entry)
    backbones = [_load_own(entry) for entry in BACKBONES.entries().values()]
    if os.environ.get("GKDBENCH_WORKER_COLD") != "1":
        _prepare_checks(*backbones)
        _first_steps()


def _first_steps() -> None:
    """Two steps of a tiny training, which set up what every step uses.

    A torch built for GPUs starts threads for its first backward pass, which forks could not use: there, none.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from gkdbench.training.steps import adam

    if torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))
        optimiser = adam(model, lr=0.01, weight_decay=0.01)
        for _ in range(2):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(torch.ones(3, 4)), torch.tensor([0, 1, 0]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def _prepare_checks(*classes: Any) -> None:
    """Make the checks of these classes' fields, which takes a millisecond a field."""
    from gkdbench.training.models import field_checks

    for cls in classes:
        with suppress(Exception):  # it fails again in the cell, whose row says how
            field_checks(cls)


def import_method(name: str) -> None:
    """Import the method `name` where it is one of this package: its later cells, forked from here, find it imported.

    A third party's module is imported by its cells alone: it may do anything to the process that imports it. Its first
    step by an optimiser of torch's imports torch's compiler, which takes seconds: that is done here, once.
    """
    from gkdbench.training.registry import METHODS

    entry = METHODS.entries().get(name)
    if entry is None:
        return
    if (method := _load_own(entry)) is not None:
        _prepare_checks(method)
    elif os.environ.get("GKDBENCH_WORKER_COLD") != "1":
        import_module("torch._dynamo")


def _load_own(entry: Entry) -> Any:
    """What `entry` names, where it is of this package; else None."""
    if entry.target.startswith("gkdbench."):
        with suppress(Exception):  # it fails again in the cell, whose row says how
            return entry.load()
    return None


def serve(job: Job, size: int) -> dict[str, Any]:
    """Run one job; the answer has the hash of the outcome's file, or why there is none."""
    from gkdbench.protocol.session import write_outcome

    path = Path(job.scratch) / "outcome.json"
    reset_peak_memory()
    try:
        with memory_limit(job, size):
            outcome = _run(job)
        if outcome.reason is not None:
            outcome.reason = shortened(outcome.reason)
        if outcome.traceback is not None:
            outcome.traceback = shortened(outcome.traceback)
        write_outcome(outcome, path)
        return {"done": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        said = error.strerror or str(error)[:500]
        if _disk_is_full(error):
            return {"storage_error": [error.errno, said]}
        return {"failed": f"{type(error).__name__}: {said}"}  # the method removed its folder, or used up its files
    except Exception as error:  # the outcome cannot be written: the method changed what it is made of
        return {"failed": f"{type(error).__name__} when its outcome was written"}


def _disk_is_full(error: OSError) -> bool:
    """numpy reports a short write without an error number."""
    return error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) or "requested and" in str(error)


def _run(job: Job) -> RunOutcome:
    from gkdbench.measure.energy import counters, metered
    from gkdbench.printable import encodable, said
    from gkdbench.protocol.bank import BankEntry
    from gkdbench.protocol.session import RunOutcome, run_session
    from gkdbench.training.resolve import resolve_stored

    teachers = {
        role: BankEntry(Path(entry.folder), entry.method, entry.config, entry.seed)
        for role, entry in job.teachers.items()
    }
    try:
        method = resolve_stored(job.method, job.config)
        with metered(counters(job.device)) as meter:
            if job.measure is not None:
                from gkdbench.measure.cost.session import MeasureSettings, measure_session

                return measure_session(
                    method,
                    bundle=Path(job.bundle),
                    scratch=Path(job.scratch),
                    seed=job.seed,
                    teachers=teachers,
                    settings=MeasureSettings.parse(job.measure),
                    device=job.device,
                    time_limit_s=job.time_limit_s,
                    energy=meter.joules,
                )
            return run_session(
                method,
                bundle=Path(job.bundle),
                later=Path(job.later) if job.later else None,
                scratch=Path(job.scratch),
                seed=job.seed,
                teachers=teachers,
                patience=getattr(method, "patience", None),
                selection=method.selection_rule(job.selection),
                audit_every=job.audit_every,
                time_limit_s=job.time_limit_s,
                device=job.device,
                bank=Path(job.bank) if job.bank else None,
                sweeps=job.sweeps,
                energy=meter.joules,
                keep_weights=job.keep_weights,
            )
    except BaseException as error:  # sys.exit, KeyboardInterrupt, a module that cannot be imported: of this cell alone
        of_user = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if of_user or (isinstance(error, OSError) and _disk_is_full(error)):
            raise  # Ctrl-C in `--debug`; or the run's disk
        traceback = "".join(tb.format_exception(error))
        return RunOutcome("error", "fit", said(error), encodable(traceback))


def main() -> NoReturn:
    """Run the cell whose orders are on stdin."""
    orders = Orders.parse(sys.stdin.buffer.readline())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.set_inheritable(orders.answer, False)
    run_cell(orders)


if __name__ == "__main__":
    main()
