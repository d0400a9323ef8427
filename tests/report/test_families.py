"""Many comparisons: step-down max-T against an enumeration by hand, words, pooling, power, and what is no number."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gkdbench.errors import UserError
from gkdbench.report import statistics as s
from gkdbench.report.statistics.family import step_down_of
from gkdbench.report.statistics.signflip import half_of_subsets

RUNS = [(k, k) for k in range(10)]


def by_run(values: object, runs: list[tuple[int, int]] = RUNS) -> dict[tuple[int, int], float]:
    return dict(zip(runs, map(float, values), strict=True))  # type: ignore[arg-type, call-overload]


def noise(count: int, *, runs: int = 10, sd: float = 0.017, seed: int = 0) -> list[dict[tuple[int, int], float]]:
    drawn = np.random.default_rng(seed).normal(0, sd, (count, runs))
    return [by_run(row, [(k, k) for k in range(runs)]) for row in drawn]


def test_step_down_is_the_enumeration_by_hand() -> None:
    """Westfall and Young's step-down: each line against the largest statistic of itself and all lesser ones."""
    table = np.random.default_rng(3).normal(0.4, 1.0, (3, 6))
    scale = np.sqrt((table**2).sum(axis=1))
    observed = np.abs(table.sum(axis=1)) / scale
    order = sorted(range(3), key=lambda row: -observed[row])
    expected, highest = {}, 0.0
    for rank, row in enumerate(order):
        hits = 0
        for signs in itertools.product((1, -1), repeat=6):
            drawn = [abs(float(np.dot(signs, table[other]))) / scale[other] for other in order[rank:]]
            hits += max(drawn) >= observed[row] - 1e-9
        highest = max(highest, hits / 2**6)
        expected[row] = highest
    found = s.step_down([by_run(row, RUNS[:6]) for row in table])
    assert found == pytest.approx([expected[row] for row in range(3)])


def test_flips_are_joint_so_that_copies_of_a_line_cost_nothing() -> None:
    (line,) = noise(1, seed=5)
    shifted = {run: value + 0.02 for run, value in line.items()}
    assert s.step_down([shifted] * 7) == [s.step_down([shifted])[0]] * 7
    assert s.holm([s.sign_flip_p(list(shifted.values()))] * 7)[0] > s.step_down([shifted] * 7)[0]


def test_the_order_of_lines_and_of_runs_moves_nothing_and_a_further_run_leaves_the_flips_of_others() -> None:
    lines = noise(4, runs=20)
    found = s.step_down(lines, flips=500)
    assert s.step_down(lines[::-1], flips=500) == found[::-1]
    turned = [dict(reversed(line.items())) for line in lines]
    assert s.step_down(turned, flips=500) == found


def test_sixty_rows_of_noise_never_hide_ten_points() -> None:
    """Holm over as many lines could find nothing at all at ten runs: the same p values are the positive control."""
    clear = [by_run(0.1 + np.random.default_rng(9).normal(0, 0.017, 10)), by_run([0.1] * 10)]
    for seed in range(3):
        judged = s.judge([*clear, *noise(60, seed=seed)])
        assert [of.outcome for of in judged[:2]] == ["better", "better"]
        own = [of.test.p_value for of in judged if of.test]
        assert min(s.holm(own)) > 0.05


def test_words() -> None:
    calm = np.array([0.001, -0.001] * 5)
    better, worse, equal, open_, few = s.judge(
        [by_run(calm + 0.02), by_run(calm - 0.02), by_run(calm), *noise(1, sd=0.05), by_run(calm[:4], RUNS[:4])]
    )
    assert [of.outcome for of in (better, worse, equal, open_, few)] == [
        "better",
        "worse",
        "equal",
        "not resolved",
        None,
    ]
    assert open_.extend is not None and open_.said == f"not resolved, extend to {open_.extend} runs"
    assert few.said == "preview, 4 runs" and few.p_family is None and few.test is not None
    assert all(of.p_family >= of.test.p_value for of in (better, worse, equal, open_) if of.test)  # type: ignore[operator]
    assert s.judge([by_run(calm)], margin=None)[0].outcome == "not resolved"
    assert s.judge([by_run(calm + 0.02)], claimed=[False])[0].outcome is None


def test_equal_takes_an_interval_inside_half_a_point_and_not_a_large_p() -> None:
    wide = np.array([0.02, -0.02] * 5)
    (found,) = s.judge([by_run(wide)])
    assert found.test is not None and found.test.p_value == 1.0 and found.outcome == "not resolved"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({}, "not compared: expected two or more shared runs, got 0"),
        (by_run([0.1], RUNS[:1]), "not compared: expected two or more shared runs, got 1"),
        (by_run([0.0] * 10), "the same score in every run, nothing to test"),
    ],
)
def test_what_cannot_be_tested_is_a_sentence_and_no_number(line: dict[tuple[int, int], float], said: str) -> None:
    alone, beside = s.judge([line])[0], s.judge([line, by_run(np.linspace(0.01, 0.02, 10))])
    assert (alone.test, alone.p_family, alone.std, alone.outcome, alone.said) == (None, None, None, None, said)
    assert beside[0] == alone and beside[1].outcome == "better"


def test_a_number_that_is_missing_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="none missing, got 10 values of shape"):
        s.judge([by_run([math.nan, *[0.1] * 9])])


def test_places_are_pooled_over_the_runs_that_all_have() -> None:
    one, two = by_run([0.02] * 10), by_run([0.04] * 8, RUNS[2:])
    found = s.pooled([one, two])
    assert found.gains == {run: pytest.approx(0.03) for run in RUNS[2:]}
    assert found.said == "2 places, 8 shared runs (places have 8 to 10)"
    apart = s.pooled([one, by_run([0.1], [(99, 99)])])
    assert not apart.gains and apart.said == "the 2 places share no run"
    assert s.judge([apart.gains])[0].test is None
    assert s.pooled([]).said == "no place where both have a run"


def test_runs_that_resolve_a_line_find_it_or_show_it_equal() -> None:
    assert s.runs_to_resolve(0.5, 1.0, margin=None) == s.seeds_needed(0.5, 1.0) == 34
    assert s.runs_to_resolve(0.5, 1.0, margin=None, tests=10) > 34
    assert s.runs_to_resolve(0.0, 0.01, margin=0.005) < s.runs_to_resolve(0.0005, 0.01, margin=None)
    assert s.runs_to_resolve(0.0, 1.0, margin=None) == 1001


def test_power_of_a_design_grows_with_gain_and_runs() -> None:
    spread = np.full((3, 3), 0.0001) + np.eye(3) * 0.0001
    few = s.power_of_design((0.0, 0.01, 0.02), spread, 10, tables=60)
    many = s.power_of_design((0.0, 0.01, 0.02), spread, 20, tables=60)
    assert few[0] <= 0.05 and few == sorted(few) and many[1] >= few[1] and many[2] >= 0.95
    assert s.power_of_design((0.01,), spread, 10, others=30, tables=60)[0] <= few[1] + 0.05


DRAWS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size=size),
    "t3": lambda rng, size: rng.standard_t(3, size=size),
    "exponential": lambda rng, size: rng.exponential(size=size) - 1,
}


def shares(tables: int, rows: int, runs: int, seed: int) -> tuple[float, float]:
    """(family-wise error of normal noise, power for one gain of 2 standard deviations)."""
    rng = np.random.default_rng([seed, rows, runs])
    signs = 1.0 - 2.0 * half_of_subsets(10)
    wrong = found = 0
    for _ in range(tables):
        if runs > 10:  # sampled anew, as every table of records has its own runs
            drawn = rng.integers(0, 2, size=(1_000, runs), dtype=np.int8)
            drawn[0] = 0
            signs = 1.0 - 2.0 * drawn
        table = rng.normal(size=(runs, rows))
        wrong += step_down_of(table, signs).min() < 0.05
        table[:, 0] += 2.0
        found += step_down_of(table, signs)[0] < 0.05
    return wrong / tables, found / tables


def covered(tables: int, runs: int, name: str) -> float:
    rng = np.random.default_rng([runs, len(name)])
    hits = 0
    for _ in range(tables):
        found = s.sign_flip(DRAWS[name](rng, runs), flips=1_000)
        inside = found.interval[0] <= 0.0 <= found.interval[1]
        assert inside is not (found.p_value < 0.05)
        hits += inside
    return hits / tables


def equals(tables: int) -> tuple[float, float]:
    """(called better or worse, called equal) of exact equals, 20 runs with a standard deviation of 0.5 points."""
    rng = np.random.default_rng(4)
    runs = [(k, k) for k in range(20)]
    said = [s.judge([by_run(rng.normal(0, 0.005, 20), runs)])[0].outcome for _ in range(tables)]
    return sum(word in ("better", "worse") for word in said) / tables, said.count("equal") / tables


def test_a_small_simulation_of_error_power_and_coverage() -> None:
    """400 tables: bounds are three standard errors wide. The large one is below."""
    error, power = shares(400, 30, 10, seed=1)
    assert error <= 0.05 + 3 * 0.011 and power >= 0.9 - 3 * 0.015
    for name, least in (("normal", 0.94), ("exponential", 0.9)):
        assert covered(400, 10, name) >= least - 3 * 0.012
    wrong, equal = equals(40)
    assert wrong <= 0.15 and equal >= 0.8


@pytest.mark.full
@pytest.mark.parametrize("runs", [10, 20])
@pytest.mark.parametrize("rows", [5, 30, 60])
def test_family_wise_error_and_power(rows: int, runs: int) -> None:
    error, power = shares(10_000, rows, runs, seed=2)
    print(f"{rows} rows, {runs} runs: family-wise error {error:.4f}, power for 2 sd {power:.4f}")
    assert error <= 0.056
    assert power >= (0.8 if (rows, runs) == (60, 10) else 0.9)


@pytest.mark.full
@pytest.mark.parametrize("runs", [10, 20])
@pytest.mark.parametrize("name", list(DRAWS))
def test_intervals_cover(name: str, runs: int) -> None:
    found = covered(10_000, runs, name)
    print(f"{name}, {runs} runs: covered {found:.4f}")
    assert found >= 0.9 if name == "exponential" else 0.94 <= found <= 0.97


@pytest.mark.full
def test_exact_equals_are_called_so() -> None:
    wrong, equal = equals(1_000)
    print(f"exact equals: better or worse {wrong:.3f}, equal {equal:.3f}")
    assert wrong <= 0.05 + 3 * 0.007 and equal >= 0.8
