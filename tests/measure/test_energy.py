"""Energy from counters: packages and their memory, counters that begin again, what may not be read."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import pytest

from gkdbench.measure import energy
from gkdbench.measure.energy import Meter, NvmlDevice, counters, metered

RANGE_UJ = 1_000_000_000


def zone(root: Path, number: str, name: str, used_uj: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (folder / "energy_uj").write_text(f"{used_uj}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_count_and_their_parts_do_not(tmp_path: Path) -> None:
    files = [zone(tmp_path, f"{k}", f"package-{k}", 0) for k in (0, 1)] + [zone(tmp_path, "0:1", "dram", 0)]
    zone(tmp_path, "0:0", "core", 0)
    zone(tmp_path, "2", "psys", 0)
    meter = Meter(counters("cpu", tmp_path))
    for file, used in zip(files, (5_000_000, 7_000_000, 500_000), strict=True):
        file.write_text(f"{used}\n")
    assert meter.joules() == pytest.approx(12.5)
    files[0].write_text("6000000\n")
    assert meter.joules() == pytest.approx(13.5), "since the beginning, however often it is read"


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    file = zone(tmp_path, "0", "package-0", RANGE_UJ - 2_000_000)
    meter = Meter(counters("cpu", tmp_path))
    file.write_text("3000000\n")
    assert meter.joules() == pytest.approx(5.0)


class Script:
    """A counter of 1000 J that says `values` in turn, and then the last one."""

    range_j: float | None = 1000.0

    def __init__(self, *values: float) -> None:
        self._values, self.said = list(values), threading.Event()

    def joules(self) -> float:
        if len(self._values) == 1:
            self.said.set()
            return self._values[0]
        return self._values.pop(0)


def test_it_is_looked_at_in_between() -> None:
    """Begun again twice, and seen both times, though nobody asked."""
    script = Script(900, 100, 800, 200)
    with metered([script], look_every_s=1e-4) as meter:
        assert script.said.wait(60)
        assert meter.joules() == pytest.approx(200 + 700 + 400)


def test_what_cannot_be_read_has_no_reading(tmp_path: Path) -> None:
    assert counters("cpu", tmp_path / "nowhere") == []
    file = zone(tmp_path, "0", "package-0", 1)
    meter = Meter(counters("cpu", tmp_path))
    file.unlink()
    assert meter.joules() is None
    file.write_text("1\n")
    assert meter.joules() is None, "a gap is no reading"
    file.write_text("nothing\n")
    assert counters("cpu", tmp_path) == []
    with metered([]) as none:
        assert none.joules() is None


def test_a_gpu_without_its_counter_leaves_no_part_of_a_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "0", "package-0", 1)

    def absent(_: str) -> Any:
        raise OSError("no NVML")

    monkeypatch.setattr(energy, "_gpu", absent)
    assert len(counters("cpu", tmp_path)) == 1 and counters("cuda:0", tmp_path) == []


class Library:
    """NVML as far as it is called: one device, millijoules."""

    used_mj = 4_000
    known = b"GPU-1"

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        handle._obj.value = 17
        return 0 if uuid == self.known else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, device: ctypes.c_void_p, value: Any) -> int:
        value._obj.value = self.used_mj
        return 0 if device.value == 17 else 1


def test_a_gpu_counts_millijoules() -> None:
    library = Library()
    meter = Meter([NvmlDevice(library, "GPU-1")])
    library.used_mj = 6_500
    assert meter.joules() == pytest.approx(2.5)
    with pytest.raises(OSError, match="nvmlDeviceGetHandleByUUID: expected return code 0, got 6"):
        NvmlDevice(library, "GPU-2")
