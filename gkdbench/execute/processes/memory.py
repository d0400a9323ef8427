"""The memory of one cell: its limit, and its peak."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gkdbench.execute.job import Job


def address_space_bytes() -> int:
    """Size of this process's address space; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


@contextmanager
def memory_limit(job: Job, size: int) -> Iterator[None]:
    """Let the process grow by the job's limit beyond `size`, its address space when it was idle."""
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


def reset_peak_memory() -> None:
    """Forget the peak of what ran in this process before, so that `ru_maxrss` is this cell's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak then includes what was there at the start
