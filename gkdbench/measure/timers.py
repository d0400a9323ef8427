"""How long something takes: candidates interleaved, caches warm or cold by name, device time apart from wall time.

What a clock reads is trusted only after `check_clock` measured a duration that is known. Caches are emptied, and the
device waited for, outside of what is timed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

TimedCall = Callable[[], object]
Caches = Literal["warm", "cold"]
"""warm: what the last call left is there; cold: a buffer larger than the last-level cache was written in between."""

CLOCK_TOLERANCE = 0.05  # of a known duration
_KNOWN_S = 0.005
_TRIALS = 20  # of the known duration: a busy machine takes the processor away at the ends of some
_LEAST_S = 0.001  # of one sample with warm caches: shorter runs are repeated within the sample
_CPU_CACHE_BYTES = 32 << 20  # where the system does not report it


@dataclass(frozen=True, slots=True)
class TimeSample:
    """One reading, seconds a call.

    Attributes:
        wall_s: from the call to the device being idle.
        device_s: between two marks on the device's own queue; None on the CPU.
    """

    wall_s: float
    device_s: float | None = None


class Clock(Protocol):
    """Times `repeats` calls of a function, and empties caches outside of that."""

    def sample(self, run: TimedCall, *, repeats: int, caches: Caches) -> TimeSample:
        """One reading: the mean of `repeats` calls."""


class CpuClock:
    """Wall time of synchronous work.

    Args:
        now: nanoseconds, monotonic.
        cache_bytes: size of the last-level cache; the buffer that evicts it is twice as large.
    """

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns, *, cache_bytes: int | None = None) -> None:
        self._now = now
        self._cache_bytes = cpu_cache_bytes() if cache_bytes is None else cache_bytes
        self._evictor: torch.Tensor | None = None

    def sample(self, run: TimedCall, *, repeats: int, caches: Caches) -> TimeSample:
        if caches == "cold":
            if self._evictor is None:
                self._evictor = torch.zeros(2 * self._cache_bytes // 4)
            self._evictor.add_(1.0)
        begin = self._now()
        for _ in range(repeats):
            run()
        return TimeSample((self._now() - begin) * 1e-9 / repeats)


class CudaClock:
    """Device time between two events, and wall time with the device idle on both sides; two separate calls.

    The events are queued behind a write that is larger than the L2 cache (cold) or behind a call of the function itself
    (warm), so that the device never waits for launches of short kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cache = int(torch.cuda.get_device_properties(device).L2_cache_size)
        self._evictor = torch.zeros(4 * cache // 4, device=device)

    def sample(self, run: TimedCall, *, repeats: int, caches: Caches) -> TimeSample:
        with torch.cuda.device(self._device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._evictor.add_(1.0) if caches == "cold" else run()
            begin.record()
            for _ in range(repeats):
                run()
            end.record()
            torch.cuda.synchronize()
            if caches == "cold":
                self._evictor.add_(1.0)
                torch.cuda.synchronize()
            start = time.perf_counter_ns()
            for _ in range(repeats):
                run()
            torch.cuda.synchronize()
            wall = time.perf_counter_ns() - start
        return TimeSample(wall * 1e-9 / repeats, begin.elapsed_time(end) * 1e-3 / repeats)


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def measure(
    runs: Mapping[str, TimedCall],
    clock: Clock,
    *,
    rounds: int,
    caches: Caches = "warm",
    budget_s: float = float("inf"),
    least_rounds: int = 5,
    single: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, list[TimeSample]]:
    """Time all candidates in turns, so that a change of the machine's speed meets all of them.

    Each candidate is called twice unseen first. Every round calls every candidate once, in a newly drawn order; the
    i-th samples of two candidates belong together.

    Args:
        runs: name -> what to time.
        rounds: samples of each.
        budget_s: no round begins later than this, once there are `least_rounds`.
        single: every sample is one call, as percentiles need; short calls are repeated within a sample otherwise.
        now: seconds, for the budget.

    Returns:
        Name -> samples, equally many for all.
    """
    begin, repeats = now(), {}
    for name, run in runs.items():
        run()
        once = clock.sample(run, repeats=1, caches="warm").wall_s
        repeats[name] = 1 if single or caches == "cold" else max(1, min(1000, int(_LEAST_S / max(once, 1e-9))))
    samples: dict[str, list[TimeSample]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for done in range(rounds):
        if done >= least_rounds and now() - begin > budget_s:
            break
        shuffle(order)
        for name in order:
            samples[name].append(clock.sample(runs[name], repeats=repeats[name], caches=caches))
    return samples


def check_clock(clock: Clock, device: torch.device) -> float:
    """Measure a known duration; returns the relative error.

    On the CPU a loop that measures by another clock how long it took. On a GPU a kernel that counts cycles, once so
    many
    and once four times as many: the ratio is four, whatever the frequency, if the clock waits for the device.

    Raises:
        RuntimeError: an error above `CLOCK_TOLERANCE` in all trials: no time may be printed.
    """
    error = min(_clock_error(clock, device) for _ in range(_TRIALS))
    if error > CLOCK_TOLERANCE:
        raise RuntimeError(
            f"the clock: expected an error of at most {CLOCK_TOLERANCE:.0%} on a known duration, got {error:.0%}"
        )
    return error


def _clock_error(clock: Clock, device: torch.device) -> float:
    if device.type == "cpu":
        took = [_KNOWN_S]
        measured = clock.sample(lambda: took.append(_spin(_KNOWN_S)), repeats=1, caches="warm").wall_s
        return abs(measured / took[-1] - 1.0)
    cycles = int(_KNOWN_S * 1e9)

    def sleep(count: int) -> TimeSample:
        return clock.sample(lambda: torch.cuda._sleep(count), repeats=1, caches="warm")  # type: ignore[no-untyped-call]

    short, long = sleep(cycles), sleep(4 * cycles)
    pairs = [(short.wall_s, long.wall_s), (short.device_s or 0.0, long.device_s or 0.0)]
    return max(abs(b / a / 4.0 - 1.0) if a else float("inf") for a, b in pairs)


def _spin(seconds: float) -> float:
    """Busy for at least `seconds`; returns for how long, as a machine with other work may take the processor away."""
    begin = time.monotonic_ns()
    while (took := time.monotonic_ns() - begin) < seconds * 1e9:
        pass
    return took * 1e-9


def cpu_cache_bytes() -> int:
    """Size of this machine's largest cache."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]])
    return max(sizes, default=_CPU_CACHE_BYTES)
