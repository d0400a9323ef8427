"""Published numbers on our very splits: judged by what training alone moves, where there are seeds enough to see it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gkdbench.report.published import Published, published
from gkdbench.report.trainingspread import judged_by_training

NUMBER = next(row for row in published() if row.dataset == "cora" and row.split_protocol == "cpf-lcc-20-30")
PLACE = {"split": "cpf-lcc-20-30", "dataset": "cora"}


def number(mean: float, runs: int | None = 10) -> Published:
    return replace(NUMBER, mean=mean, n_runs=runs)


def scores(
    *, seeds: int = 3, splits: int = 10, within: float = 0.3, between: float = 3.0
) -> dict[tuple[int, int], float]:
    """80% on average; splits differ by far more than seeds do."""
    shift = np.linspace(-between, between, splits)
    around = np.linspace(-within, within, seeds) if seeds > 1 else np.zeros(1)
    return {(i, i + 1000 * k): (80 + shift[i] + around[k]) / 100 for i in range(splits) for k in range(seeds)}


def test_the_tolerance_holds_the_variance_of_training_alone() -> None:
    found = judged_by_training(scores(), number(80.7), **PLACE)
    assert found is not None and found.tolerance is not None
    assert found.difference == pytest.approx(-0.7) and found.splits == 10
    error = math.sqrt(0.3**2 / 30 + 0.3**2 / 10)  # variance within splits of -0.3, 0, 0.3
    assert 2 * error < 0.5 == found.tolerance and found.grade == "close"
    wide = judged_by_training(scores(within=2.0), number(80.7), **PLACE)
    assert wide is not None and wide.tolerance == pytest.approx(2 * math.sqrt(4 / 30 + 4 / 10))
    assert wide.grade == "reproduced"
    far = judged_by_training(scores(), number(81.5), **PLACE)
    assert far is not None and far.grade == "not reproduced"


def test_only_the_publications_splits_count_and_every_split_counts_once() -> None:
    more = scores(splits=20, between=0.0) | {(3, 5000): 0.9}
    found = judged_by_training(more, number(80.0), **PLACE)
    assert found is not None and found.splits == 10
    assert found.difference == pytest.approx((90 - 80) / 4 / 10)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (scores(seeds=1), "10 of 10 splits have fewer than 3 training seeds"),
        (scores() | {(3, 1): 0.8}, ""),
        (scores(splits=8), "2 of its 10 splits were not run"),
    ],
)
def test_what_is_missing_is_said(given: dict[tuple[int, int], float], missing: str) -> None:
    found = judged_by_training(given, number(80.0), **PLACE)
    assert found is not None and found.missing == missing
    assert (found.tolerance is None) is (found.grade is None) is bool(missing)


def test_other_splits_are_not_judged_so() -> None:
    assert judged_by_training(scores(), number(80.0), split="cpf-lcc-20-30", dataset="pubmed") is None
    assert judged_by_training(scores(), number(80.0), split="planetoid-public", dataset="cora") is None
    assert judged_by_training({}, number(80.0), **PLACE) is None
