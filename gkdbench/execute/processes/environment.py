"""The environment of workers and their cells: no way to data, fixed thread counts, the allocator's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gkdbench.execute.processes.cell_process import PARENT

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
"""Keeps freed memory in the process: page faults cost a third of a small cell's time otherwise (design decision 15)."""

ARITHMETIC = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA")
"""Variables that make libraries sum in another order. Cells do not see them: no record says that they were set."""


def worker_environment(threads: int, *, tune_allocator: bool = True) -> dict[str, str]:
    """The environment of a worker: no way to the labels, thread counts fixed, hashing fixed, and no variable that
    chooses other arithmetic."""
    hidden = {"GKDBENCH_DATA", "XDG_CACHE_HOME", "OLDPWD", *ARITHMETIC}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {
        "XDG_CACHE_HOME": "/nonexistent/gkdbench-worker",
        "GKDBENCH_WORKER": "1",
        PARENT: str(os.getpid()),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")},
    }
    return (ALLOCATOR | environment) if tune_allocator else environment


def allocator_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The ``MALLOC_*`` settings that a worker runs under."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith("MALLOC_")}
