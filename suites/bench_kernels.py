"""The kernels' bench for pytest-benchmark: ``pytest suites/bench_kernels.py``, with the ``bench`` extra.

Every case runs through the gate first and is timed by our own clock, candidates in turns; its samples are what
pytest-benchmark stores and compares. ``GKDBENCH_BENCH=full`` runs the full table instead of tiny inputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from gkdbench.data.datasets import available, load_task
from gkdbench.measure.machine_peaks import MachinePeaks, measure_roofs
from gkdbench.measure.operators.bench import BenchSettings, CandidateResult, CaseResult, run_cases
from gkdbench.measure.operators.cases import all_cases, quick_cases
from gkdbench.measure.operators.graphs import DATA_SETS
from gkdbench.measure.operators.problem import Case
from gkdbench.measure.ratios import Ratio
from gkdbench.measure.timers import CLOCK_TOLERANCE, Clock, check_clock, clock_for
from gkdbench.testing.sample_replay import SampleReplay

pytest.importorskip("pytest_benchmark", reason="the bench wants pytest-benchmark: pip install 'gkdbench[bench]'")

FULL = os.environ.get("GKDBENCH_BENCH") == "full"
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
SETTINGS = BenchSettings() if FULL else BenchSettings(rounds=15, budget_s=1.0, slow=False)
REPLAY = SampleReplay()


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


def test_the_clock_measures_a_known_duration(benchmark: Any) -> None:
    error = benchmark.pedantic(check_clock, args=(clock_for(DEVICE), DEVICE), rounds=1)
    assert error <= CLOCK_TOLERANCE


@pytest.mark.gkd_percentiles
@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_kernel(case: Case, clock: Clock, roofs: MachinePeaks, benchmark: Any, gkd_ratio: Callable[..., None]) -> None:
    run = partial(measured, case, clock, roofs)
    result = run()
    assert result.green, [(row.name, row.reason) for row in result.rows if row.ours]
    feed(benchmark, result)
    if (plain := reference(result)) is not None:
        gkd_ratio(to_reference(result, plain.name), plain.name, again=lambda: to_reference(run(), plain.name))


def measured(case: Case, clock: Clock, roofs: MachinePeaks) -> CaseResult:
    """One case, gate included."""
    (result,) = run_cases(
        [case], device=DEVICE, clock=clock, roofs=roofs, settings=SETTINGS, load=lambda name: load_task(name).graph
    )
    return result


def reference(result: CaseResult) -> CandidateResult | None:
    """What ratios are committed of: the first plain formula that took part, the same on every machine."""
    others = (row for row in result.rows if row.status == "ok" and not row.ours and row.name.startswith("torch"))
    return next(others, None)


def to_reference(result: CaseResult, name: str) -> Ratio:
    """The fastest of ours over the reference."""
    mine = result.fastest(ours=True)
    assert mine is not None
    found = result.ratio(mine.name, name)
    assert found is not None
    return found


def feed(benchmark: Any, result: CaseResult) -> None:
    """Hand our samples of the fastest backend to pytest-benchmark, and the ratios as extra information."""
    mine = result.fastest(ours=True)
    assert mine is not None
    told = result.as_json()
    benchmark.extra_info.update(ratios=told["ratios"], backend=mine.name, percent_of_roof=mine.percent_of_roof)
    benchmark.extra_info["absent"] = {row.name: row.reason for row in result.rows if row.reason}
    REPLAY.feed(benchmark, mine.seconds("device") or mine.seconds("wall"))
