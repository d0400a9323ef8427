"""Ratios and percentiles: what few samples do not support is not said."""

from __future__ import annotations

import numpy as np
import pytest

from gkdbench.measure.ratios import percentile, ratio


def test_a_ratio_of_medians_with_its_interval() -> None:
    random = np.random.default_rng(1)
    theirs = (2.0 + 0.1 * random.random(40)).tolist()
    found = ratio([0.5 * value for value in theirs], theirs)
    assert found.value == found.low == found.high == pytest.approx(0.5)  # pairs move together
    apart = ratio((1.0 + 0.1 * random.random(40)).tolist(), theirs)
    assert apart.low < apart.value < apart.high
    assert (apart.n, str(apart)[-4:]) == (40, "n=40")


def test_an_outlier_moves_no_median() -> None:
    assert ratio([1.0, 1.0, 1.0, 1.0, 99.0], [2.0] * 5).value == 0.5


@pytest.mark.parametrize("pair", [([], []), ([1.0], [1.0, 2.0])])
def test_samples_that_are_no_pairs(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="one length above 0"):
        ratio(*pair)


@pytest.mark.parametrize(("q", "least", "second"), [(0.9, 44, 64), (0.95, 90, 130), (0.99, 459, 662)])
def test_a_percentile_wants_its_samples(q: float, least: int, second: int) -> None:
    """The constants of MLPerf's LoadGen."""
    assert percentile([1.0] * (least - 1), q) is None
    assert percentile(list(range(least)), q) == least - 1
    assert percentile(list(range(second - 1)), q) == second - 2
    assert percentile(list(range(second)), q) == second - 2  # one sample may lie above


def test_no_samples_and_no_such_quantile() -> None:
    assert percentile([], 0.5) is None
    with pytest.raises(ValueError, match=r"q: expected a value in \(0, 1\), got 1"):
        percentile([1.0], 1)
