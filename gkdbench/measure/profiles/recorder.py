"""Times some units of work under torch's profiler, then counts one more; the two together are a profile."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.profiles.counting import OperatorCounter
from gkdbench.measure.profiles.profile import Profile, joined
from gkdbench.measure.profiles.regions import Regions
from gkdbench.measure.profiles.shares import WINDOW, TimedWindow, times, window_of


class Recorder:
    """Begin and end of the two phases; whoever runs the work calls them in this order, each once.

    Args:
        regions: told of the counter while it counts.
    """

    def __init__(self, device: torch.device, regions: Regions) -> None:
        self._device, self._regions = device, regions
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self._profiler = profile(activities=kinds)
        self._window = record_function(WINDOW)
        self._counter = OperatorCounter()
        self._timing = self._counting = False

    def begin_timing(self) -> None:
        """From here on the profiler runs."""
        self._wait()
        self._profiler.start()
        self._window.__enter__()  # type: ignore[no-untyped-call]
        self._timing = True

    def end_timing(self) -> None:
        """The last moment that is timed."""
        self._wait()
        self._window.__exit__(None, None, None)
        self._profiler.stop()
        self._timing = False

    def begin_counting(self) -> None:
        """From here on operators are counted."""
        self._regions.counter = self._counter
        self._counter.__enter__()  # type: ignore[no-untyped-call]
        self._counting = True

    def end_counting(self) -> None:
        """The last operator that is counted was called."""
        self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._regions.counter = None
        self._counting = False

    def abandon(self) -> None:
        """End what is running, so that a failure of the work leaves neither profiler nor counter behind."""
        if self._timing:
            self.end_timing()
        if self._counting:
            self.end_counting()

    def write_trace(self, path: Path) -> None:
        """The trace for Perfetto (https://ui.perfetto.dev) or ``chrome://tracing``."""
        self._profiler.export_chrome_trace(str(path))

    def window(self) -> TimedWindow:
        """What was timed."""
        events = self._profiler.events()  # type: ignore[no-untyped-call]
        return window_of(events, on_gpu=self._device.type == "cuda")

    def profile(self, what: str, peaks: MachinePeaks, *, unit: str, units: int, counted_units: int = 1) -> Profile:
        """Times and costs joined; see `joined`."""
        counted = dict(self._counter.counted)
        found = times(self.window(), counted.keys())
        return joined(what, found, counted, peaks, unit=unit, units=units, counted_units=counted_units)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
