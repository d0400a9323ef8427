"""The kernels' bench for pytest-benchmark: ``pytest suites/bench_kernels.py``, with the ``bench`` extra.

Every case runs through the gate first and is timed by our own clock, candidates in turns; its samples are what
pytest-benchmark stores and compares. ``GKDBENCH_BENCH=full`` runs the full table instead of tiny inputs.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

pytest.importorskip("pytest_benchmark", reason="the bench wants pytest-benchmark: pip install 'gkdbench[bench]'")

from gkdbench.data.datasets import available, load_task
from gkdbench.measure.machine_peaks import MachinePeaks, measure_roofs
from gkdbench.measure.operators.bench import BenchSettings, CaseResult, run_cases
from gkdbench.measure.operators.cases import all_cases, quick_cases
from gkdbench.measure.operators.graphs import DATA_SETS
from gkdbench.measure.operators.problem import Case
from gkdbench.measure.timers import Clock, check_clock, clock_for

FULL = os.environ.get("GKDBENCH_BENCH") == "full"
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
SETTINGS = BenchSettings() if FULL else BenchSettings(rounds=5, budget_s=1.0, slow=False)


def cases() -> list[Case]:
    """The table that was asked for."""
    return list(all_cases(DEVICE, tuple(filter(available, DATA_SETS))) if FULL else quick_cases())


@pytest.fixture(scope="session")
def clock() -> Clock:
    """A clock that measured a known duration."""
    found = clock_for(DEVICE)
    check_clock(found, DEVICE)
    return found


@pytest.fixture(scope="session")
def roofs(clock: Clock) -> MachinePeaks:
    """Of this machine."""
    return measure_roofs(clock, DEVICE, quick=not FULL)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_kernel(case: Case, clock: Clock, roofs: MachinePeaks, benchmark: Any) -> None:
    (result,) = run_cases(
        [case], device=DEVICE, clock=clock, roofs=roofs, settings=SETTINGS, load=lambda name: load_task(name).graph
    )
    assert result.green, [(row.name, row.reason) for row in result.rows if row.ours]
    feed(benchmark, result)


def feed(benchmark: Any, result: CaseResult) -> None:
    """Hand our samples of the fastest backend to pytest-benchmark, and the ratios as extra information."""
    mine = result.fastest(ours=True)
    assert mine is not None
    told = result.as_json()
    benchmark.extra_info.update(ratios=told["ratios"], backend=mine.name, percent_of_roof=mine.percent_of_roof)
    benchmark.extra_info["absent"] = {row.name: row.reason for row in result.rows if row.reason}
    samples = iter(mine.seconds("device") or mine.seconds("wall"))
    clock = benchmark._timer = Replayed(samples)
    benchmark.pedantic(clock.step, rounds=len(mine.samples), iterations=1)


class Replayed:
    """A timer that a call of `step` advances by the next sample: nothing is measured a second time, alone."""

    def __init__(self, samples: Any) -> None:
        self._samples, self._now = samples, 0.0

    def __call__(self) -> float:
        return self._now

    def step(self) -> None:
        """Let the next sample pass."""
        self._now += next(self._samples, 0.0)
