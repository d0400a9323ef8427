"""Energy that a span of work took, from the machine's own counters where they can be read.

Counters are of whole parts: a processor package with its memory, a GPU. They count whatever runs there, other workers
included, so that a reading is a run's own only where nothing else ran. Nothing is estimated: without a readable counter
energy is not reported unless every part of a device can be read.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
LOOK_EVERY_S = 60.0  # a package's counter wraps after some ten minutes of full power
NVML = "libnvidia-ml.so.1"


class Counter(Protocol):
    """A number that grows with the energy used."""

    range_j: float | None
    """Where it begins again at 0; None: never."""

    def joules(self) -> float:
        """Its value now.

        Raises:
            OSError: it cannot be read.
        """


class RaplZone:
    """A zone of the kernel's power capping framework: a processor package, or its memory.

    Args:
        folder: with ``energy_uj`` and ``max_energy_range_uj``.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self.range_j: float | None = int((folder / "max_energy_range_uj").read_text()) * 1e-6

    def joules(self) -> float:
        return int(self._file.read_text()) * 1e-6


class NvmlDevice:
    """An NVIDIA GPU, since its driver was loaded.

    Args:
        library: NVML, as ctypes loads it.
        uuid: the device's, with ``GPU-`` before it.

    Raises:
        OSError: NVML does not start, or does not know the device.
    """

    range_j: float | None = None

    def __init__(self, library: Any, uuid: str) -> None:
        self._library, self._device = library, ctypes.c_void_p()
        self._ask("nvmlInit_v2")
        self._ask("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self._device))

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        self._ask("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return value.value * 1e-3

    def _ask(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise OSError(f"{name}: expected return code 0, got {code}")


def counters(device: str, powercap: Path = POWERCAP) -> list[Counter]:
    """Of everything that work on `device` ("cpu", "cuda:0") uses; empty when a part has none that can be read."""
    try:
        found = _packages(powercap)
        if device != "cpu":
            found += [_gpu(device)]
        for counter in found:
            counter.joules()
    except (OSError, ValueError, AttributeError):  # not there, not permitted, no number, an NVML without the function
        return []
    return found


def _packages(powercap: Path) -> list[Counter]:
    """Every processor package with the memory that it does not count itself.

    Raises:
        OSError: none is there.
    """
    found: list[Counter] = []
    for folder in sorted(powercap.glob("intel-rapl:*")):  # AMD's are called so, too
        name = (folder / "name").read_text().strip()
        if name.startswith("package") or name == "dram":  # core and uncore are parts of a package, psys holds all
            found.append(RaplZone(folder))
    if not found:
        raise OSError(f"{powercap}: expected a processor package, got none")
    return found


def _gpu(device: str) -> Counter:
    import torch

    return NvmlDevice(ctypes.CDLL(NVML), f"GPU-{torch.cuda.get_device_properties(device).uuid}")


class Meter:
    """Adds up what `counters` grow by; without any it has no reading."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters, self._lock = list(counters), threading.Lock()
        self._last = [counter.joules() for counter in self._counters]
        self._sum = 0.0

    def joules(self) -> float | None:
        """Since the meter was made; None when it has nothing to read, or could not."""
        with self._lock:
            try:
                now = [counter.joules() for counter in self._counters]
            except OSError:
                self._counters = []
            if not self._counters:
                return None
            for counter, before, after in zip(self._counters, self._last, now, strict=True):
                self._sum += after - before + (counter.range_j or 0.0) * (after < before)
            self._last = now
            return self._sum


@contextmanager
def metered(counters: Sequence[Counter], look_every_s: float = LOOK_EVERY_S) -> Iterator[Meter]:
    """A meter that looks often enough to notice each time that a counter begins again."""
    meter, over = Meter(counters), threading.Event()

    def look() -> None:
        while not over.wait(look_every_s):
            meter.joules()

    looking = threading.Thread(target=look, daemon=True)
    if counters:
        looking.start()
    try:
        yield meter
    finally:
        over.set()
        if counters:
            looking.join()
