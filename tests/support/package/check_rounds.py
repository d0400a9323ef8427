"""Benchmarks of another author, with pytest-benchmark: one timed by gkdbench, one by pytest-benchmark itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.gkd_rounds(45)
@pytest.mark.benchmark(group="mine")
def test_timed_by_gkdbench(gkd_latency: Callable[..., Any], benchmark: Any) -> None:
    report = gkd_latency(list, list, words="the same")
    gkd_latency(list, list, words="the same", name="again", rounds=5)
    assert benchmark.stats.stats.data == list(report.samples_s)


@pytest.mark.gkd_percentiles
def test_timed_by_pytest_benchmark(benchmark: Any) -> None:
    benchmark.pedantic(list, rounds=10)


def test_left_alone(benchmark: Any) -> None:
    benchmark.pedantic(list, rounds=2)
