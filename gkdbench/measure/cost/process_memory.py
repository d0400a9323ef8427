"""The highest memory between two moments: of this process on the CPU, of torch's allocator on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory(Protocol):
    """Bytes above what was in use when it was made."""

    def reset(self) -> None:
        """Begin a new span."""

    def peak(self) -> int | None:
        """The highest use since `reset`; None where the system does not tell."""


class ProcessMemory:
    """Resident memory, from Linux's ``VmHWM``, which `reset` sets back to the present use."""

    def __init__(self) -> None:
        self._base = _field("VmRSS")
        self._can = True

    def reset(self) -> None:
        try:
            _CLEAR.write_text("5")
        except OSError:
            self._can = False

    def peak(self) -> int | None:
        high = _field("VmHWM") if self._can else None
        return None if high is None or self._base is None else max(0, high - self._base)


class CudaMemory:
    """What torch's allocator handed out on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._base = device, torch.cuda.memory_allocated(device)

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int | None:
        return max(0, torch.cuda.max_memory_allocated(self._device) - self._base)


def peak_memory(device: torch.device) -> PeakMemory:
    """The reader for `device`, whose base is the present use."""
    return CudaMemory(device) if device.type == "cuda" else ProcessMemory()


def _field(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found) * 1024
