"""A worker process: reads jobs from stdin, trains, answers. It ends when its parent does.

Started by the pool as ``python -m gkdbench.execute.worker``. It has no data folder, holds no test label, and what
methods print goes to its log, not between the answers.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from gkdbench.execute.job import Job

PARENT = "GKDBENCH_PARENT"
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve jobs until stdin ends."""
    die_with_parent()
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # a method that reads its input reads no jobs
    sys.breakpointhook = refuse_breakpoint
    faulthandler.enable()  # the log of a cell whose worker crashed ends with the line
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_num_interop_threads(1)
    warm_up()
    size = address_space_bytes()
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    for line in jobs:
        job = Job.parse(line)
        answers.write(json.dumps({"id": job.id} | serve(job, size)) + "\n")
    return 0


def refuse_breakpoint(*_: Any, **__: Any) -> None:
    """What ``breakpoint()`` does in a worker.

    Raises:
        RuntimeError: always; a worker has no terminal.
    """
    raise RuntimeError("breakpoint() in a worker, which has no terminal; try `gkdbench run ... --debug CELL`")


def warm_up() -> None:
    """Import now what every job needs, so that neither the first cell's time nor its memory limit pays for it.

    ``GKDBENCH_WORKER_COLD=1`` leaves out the optimisers' two seconds, for runs that use none.
    """
    import torch

    for module in ("gkdbench.protocol.session", "gkdbench.training.resolve"):
        import_module(module)
    if os.environ.get("GKDBENCH_WORKER_COLD") != "1":
        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports torch._dynamo and sympy on first use


def serve(job: Job, size: int) -> dict[str, Any]:
    """Run one job; the answer has the path of the outcome, or why there is none."""
    from gkdbench.protocol.session import write_outcome

    _reset_peak_memory()
    try:
        with memory_limit(job, size):
            outcome = _run(job)
        write_outcome(outcome, Path(job.scratch) / "outcome.json")
    except OSError as error:
        return {"storage_error": [error.errno, error.strerror or str(error)]}
    return {"done": True}


def _run(job: Job) -> Any:
    from gkdbench.measure.energy import counters, metered
    from gkdbench.protocol.bank import BankEntry
    from gkdbench.protocol.session import run_session
    from gkdbench.training.resolve import resolve

    method = resolve(job.method, job.config)
    teachers = {
        role: BankEntry(Path(entry.folder), entry.method, entry.config, entry.seed)
        for role, entry in job.teachers.items()
    }
    with metered(counters(job.device)) as meter:
        return run_session(
            method,
            bundle=Path(job.bundle),
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


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux); leave at once when it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):
        sys.exit("the parent has ended")


def address_space_bytes() -> int:
    """Size of this process's address space; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


@contextmanager
def memory_limit(job: Job, size: int) -> Iterator[None]:
    """Let the process grow by the job's limit beyond `size`, its address space when it was idle.

    Measured from the idle size and not from that at the job's start: memory that earlier jobs freed stays in the
    process for re-use, and must not make a later job's limit wider.
    """
    limit = job.memory_limit_bytes
    if limit is None:
        yield
        return
    if job.device != "cpu":
        import torch

        total = torch.cuda.get_device_properties(job.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), job.device)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0, job.device)
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _reset_peak_memory() -> None:
    """Forget the peak of earlier jobs, so that `ru_maxrss` is this one's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of all jobs so far


if __name__ == "__main__":
    sys.exit(main())
