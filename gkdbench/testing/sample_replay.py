"""Samples that our own clock took, handed to pytest-benchmark as its rounds: nothing is measured twice, alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any


class SampleReplay:
    """A timer for the marker ``benchmark(timer=...)``: it stands still but for `feed`, and is the real one otherwise.

    REPLAY = SampleReplay()

    @pytest.mark.benchmark(timer=REPLAY)
    def test_step(benchmark):
        REPLAY.feed(benchmark, seconds)
    """

    def __init__(self) -> None:
        self._now: float | None = None
        self.__name__ = type(self).__name__  # what pytest-benchmark writes into its JSON

    def __call__(self) -> float:
        return time.perf_counter() if self._now is None else self._now

    def feed(self, benchmark: Any, samples: Sequence[float]) -> None:
        """Make every one of `samples` (seconds a call) a round of `benchmark`, the fixture of a test with this timer.

        Raises:
            ValueError: no sample.
        """
        if not samples:
            raise ValueError("samples: expected one at least, got none; try to measure before they are handed over")
        waiting: Iterator[float] = iter(samples)
        self._now = 0.0

        def step() -> None:
            """Let the next sample pass, from 0 each time, so that no sample is rounded to the sum of all."""
            self._now = next(waiting, 0.0)

        def rewind() -> None:
            self._now = 0.0

        try:
            benchmark.pedantic(step, setup=rewind, rounds=len(samples), iterations=1)
        finally:
            self._now = None
