"""Random cases of every operator; `fuzz.py` says what a case is."""

from __future__ import annotations

from collections.abc import Iterator

import fuzz
import pytest
import torch
from gkdkernels.spmm import cpu as spmm_cpu

COUNT, FULL, SHARE = 500, 20_000, 1_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows of more than 4 edges are cut, and torch runs one thread."""
    monkeypatch.setattr("gkdkernels.graph.HUB_EDGES", fuzz.HUB)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def failures(seeds: range) -> list[str]:
    return [found for seed in seeds if (found := fuzz.failure(seed))]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_cases_are_right() -> None:
    assert failures(range(COUNT)) == []


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("first", range(COUNT, FULL, SHARE))
def test_many_random_cases_are_right(first: int) -> None:
    assert failures(range(first, min(first + SHARE, FULL))) == []


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: row sums without their weights."""
    honest = spmm_cpu.bag_sum
    monkeypatch.setattr(spmm_cpu, "bag_sum", lambda graph, x, weight: honest(graph, x, None))
    assert any("spmm" in text and "cpu" in text for text in failures(range(60)))
