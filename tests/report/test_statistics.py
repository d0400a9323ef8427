"""docs/protocol.md, section 5: hand values, scipy, and the invariances that a p value must have."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gkdbench.errors import UserError
from gkdbench.report import statistics as s

DIFFERENCES = st.lists(st.integers(-50, 50).map(lambda k: k / 1000), min_size=2, max_size=9)


def test_mean_and_unbiased_std() -> None:
    assert s.mean_std([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)))
    assert s.mean_std([0.5]) == (0.5, None)
    with pytest.raises(UserError, match="none missing"):
        s.mean_std([0.5, math.nan])


@given(DIFFERENCES)
def test_exact_sign_flip_is_the_enumeration(differences: list[float]) -> None:
    observed = abs(sum(differences))
    sums = [
        abs(sum(a * b for a, b in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert s.sign_flip_p(differences) == np.mean([total >= observed - 1e-9 for total in sums])


def test_sign_flip_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.4, 1.0, 10)
    reference = stats.permutation_test(
        (differences, np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    assert s.sign_flip_p(differences.tolist()) == pytest.approx(reference.pvalue)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=17, max_size=20), st.randoms(use_true_random=False))
def test_neither_order_nor_common_sign_moves_a_p_value(differences: list[float], rng: object) -> None:
    shuffled = list(differences)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = s.sign_flip(differences, flips=500), s.sign_flip(shuffled, flips=500)
    back = s.sign_flip([-d for d in differences], flips=500)
    assert (two.p_value, two.interval) == (one.p_value, one.interval)
    assert back.p_value == one.p_value
    assert back.interval == (pytest.approx(-one.interval[1]), pytest.approx(-one.interval[0]))


def test_sampled_sign_flip_is_near_the_exact_normal_value_and_never_zero() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.25, 1.0, 40)
    assert s.sign_flip_p(differences.tolist()) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert s.sign_flip_p([1.0] * 40, flips=1000) == pytest.approx(1 / 1001)


def test_sixteen_equal_differences_give_the_smallest_exact_p() -> None:
    assert s.sign_flip_p([0.1] * 16) == 2 / 2**16
    assert s.sign_flip_p([0.0] * 5) == 1.0


@given(DIFFERENCES)
@settings(max_examples=40, deadline=None)
def test_the_interval_is_what_the_test_does_not_exclude(differences: list[float]) -> None:
    """A shift by more than either end gives p < 0.05, one by less does not: the test itself is the oracle."""
    found = s.sign_flip(differences)
    for end, outwards in zip(found.interval, (-1, 1), strict=True):
        if math.isinf(end):
            assert 2 / 2 ** len(differences) >= 0.05
            continue
        for step, excluded in ((1e-6, True), (-1e-6, False)):
            shifted = [d - (end + outwards * step) for d in differences]
            if found.interval[0] < found.interval[1] or excluded:
                assert (s.sign_flip_p(shifted) < 0.05) is excluded


@given(DIFFERENCES)
@settings(max_examples=40, deadline=None)
def test_the_interval_excludes_zero_exactly_where_p_is_small(differences: list[float]) -> None:
    for found in (s.sign_flip(differences), s.sign_flip(differences * 3, flips=300)):
        low, high = found.interval
        assert (found.p_value < 0.05) is not (low <= 0.0 <= high)
        assert (
            low <= found.narrow[0] <= found.difference + 1e-12 and found.difference - 1e-12 <= found.narrow[1] <= high
        )


def test_few_runs_exclude_nothing_and_a_constant_is_tested_like_any_other() -> None:
    assert s.sign_flip([0.3, 0.5]).interval == (-math.inf, math.inf)
    constant = s.sign_flip([0.1] * 10)
    assert constant.p_value == 2 / 1024 and constant.interval == (pytest.approx(0.1), pytest.approx(0.1))


def test_holm_by_hand() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.9, 0.8]) == [1.0, 1.0]
    assert s.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_follows_its_p_values_and_lies_between_them_and_bonferroni(p_values: list[float], rng: object) -> None:
    order = list(range(len(p_values)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    corrected = s.holm(p_values)
    assert s.holm([p_values[i] for i in order]) == [corrected[i] for i in order]
    for raw, value in zip(p_values, corrected, strict=True):
        assert raw <= value <= min(1.0, len(p_values) * raw) or value == max(
            c for c, r in zip(corrected, p_values, strict=True) if r <= raw
        )


def test_nadeau_bengio_by_hand_and_towards_the_plain_t() -> None:
    differences = [0.01, 0.03, 0.02, 0.02]
    spread = math.sqrt((1 / 4 + 1 / 9) * np.var(differences, ddof=1))
    value, p = s.nadeau_bengio(differences, 1 / 9)
    assert value == pytest.approx(0.02 / spread)
    assert p == pytest.approx(2 * stats.t.sf(0.02 / spread, 3))
    plain = stats.ttest_1samp(differences, 0)
    assert s.nadeau_bengio(differences, 1e-12) == (pytest.approx(plain.statistic), pytest.approx(plain.pvalue))
    assert s.nadeau_bengio([0.1, 0.1], 1.0) == (math.inf, 0.0)
    with pytest.raises(UserError, match="ratio"):
        s.nadeau_bengio(differences, 0.0)


def test_average_ranks_leave_incomplete_rows_out() -> None:
    scores: dict[str, dict[str, float | None]] = {
        "a": {"x": 0.9, "y": 0.5},
        "b": {"x": 0.8, "y": 0.5},
        "c": {"x": 0.99},
        "d": {"x": 0.1, "y": None},
    }
    assert s.average_ranks(scores, ("x", "y")) == {"a": 1.25, "b": 1.75}
    assert s.average_ranks({"c": {"x": 1.0}}, ("x",)) == {}  # never a rank among one
    assert s.ranked(scores, ("x", "y"))["b"] == s.Rank(1.75, 2.0, pytest.approx(0.05), pytest.approx(0.1))


def test_ranks_are_told_apart_by_friedman_and_wilcoxon_with_holm() -> None:
    rng = np.random.default_rng(0)
    columns = tuple(map(str, range(12)))
    means = {"good": 0.9, "middle": 0.7, "bad": 0.5}
    scores = {name: {c: mean + 0.01 * rng.normal() for c in columns} for name, mean in means.items()}
    found = s.rank_test(scores, columns)
    assert found is not None and found.best == "good"
    assert found.friedman == pytest.approx(
        stats.friedmanchisquare(*([*row.values()] for row in scores.values())).pvalue
    )
    assert dict(found.behind) == {"middle": 2 * 2 / 2**12, "bad": 2 * 2 / 2**12}  # least exact p, twice by Holm
    alike = {name: {c: float(rng.normal()) for c in columns} for name in means}
    same = s.rank_test(alike, columns)
    assert same is not None and not same.behind


def test_seeds_needed_is_the_textbook_number_and_reaches_its_power() -> None:
    assert s.seeds_needed(0.5, 1.0) == 34  # Cohen's d = 0.5, 80%: the tables' value
    assert s.seeds_needed(-0.5, 1.0) == 34
    assert s.seeds_needed(1.0, 0.0) == 2
    needed = [s.seeds_needed(0.1 * k, 1.0) for k in range(1, 200)]
    assert needed == sorted(needed, reverse=True) and needed[-1] == 2
    with pytest.raises(UserError, match="difference != 0"):
        s.seeds_needed(0.0, 1.0)
