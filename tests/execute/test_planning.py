"""The plan: estimates from measured rows, their interval, trials, and what is refused before anything runs."""

from pathlib import Path

import numpy as np
import pytest
from support.toy_plugin import taught_suite

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite
from gkdbench.execute.inline_suite import suite_of
from gkdbench.execute.plan import verdict
from gkdbench.execute.planning.estimates import (
    TimeModel,
    Timing,
    error_factors,
    left_out,
    published_timings,
    timing_of,
)
from gkdbench.execute.planning.facts import NUMBERS, facts_of
from gkdbench.execute.planning.forecast import forecast
from gkdbench.execute.planning.trials import trial_seconds
from gkdbench.execute.suite import parse_suite
from gkdbench.records.schema import DataInfo
from gkdbench.records.store import Store

ROOT = Path(__file__).parents[2]


def suite(method: str = "mlp", **overrides: object):  # type: ignore[no-untyped-def]  # a Suite
    return suite_of(methods=[{"method": method, "overrides": overrides}], dataset="csbm:n=400", seeds="0:2")


def cells(method: str = "mlp", **overrides: object):  # type: ignore[no-untyped-def]  # a list of cells
    return plan_suite(suite(method, **overrides), out="nowhere", device="cpu", jobs=1).todo


def test_each_published_pair_is_estimated_well_from_the_others() -> None:
    """The goal of the plan: a median error factor of 1.5, 90% within 3."""
    timings = published_timings()
    ratios = left_out(timings)
    assert len(ratios) == len({one.pair for one in timings}) >= 60
    middle, high = error_factors(ratios.values())
    assert middle <= 1.5 and high <= 3
    assert error_factors([1.0, 2.0, 0.25]) == pytest.approx((2.0, 3.6))


def test_a_pair_is_left_out_of_its_own_estimate() -> None:
    """Ten times its seconds change no estimate of it: its ratio is a tenth."""
    timings = list(published_timings()[::6])
    pair = timings[0].pair
    slow = [
        Timing(one.key, *one.pair, 10 * one.seconds if one.pair == pair else one.seconds, one.epochs, one.numbers)
        for one in timings
    ]
    assert left_out(slow)[pair] == pytest.approx(left_out(timings)[pair] / 10)


def test_more_work_takes_longer_and_few_epochs_are_proportional() -> None:
    model, data = TimeModel(published_timings()), DataInfo(
        name="x", sha256="", preprocessing={}, nodes=3000, edges=10000, features=500, classes=7
    )  # fmt: skip

    def seconds(**config: object) -> float:
        return model.seconds("new", "x", facts_of({"epochs": 200, "model": {"hidden": 64}} | config, data, "own"))

    assert seconds(epochs=5) == pytest.approx(seconds(epochs=50) / 10, rel=0.5)
    assert seconds(epochs=1) < seconds(epochs=10) < seconds(epochs=100)
    assert seconds(model={"hidden": 1024}) > seconds()
    assert seconds(peers=["gcn", "gcn", "gcn"]) > seconds()


def test_own_rows_decide_over_the_model(toy_run: tuple[Path, object]) -> None:
    store = Store(toy_run[0])
    timings = {one.key: one for _, record in store.records() if (one := timing_of(record)) is not None}
    plan = plan_suite(taught_suite(), out=toy_run[0], device="cpu", jobs=1, rerun=True)
    known = [cell for cell in plan.todo if cell.group.key in timings]
    assert known
    found = forecast(known, store)
    assert found.seconds == pytest.approx(sum(timings[cell.group.key].seconds + 0.1 for cell in known))
    assert found.guessed == 0 and found.low < found.seconds < found.high


def test_a_trial_replaces_a_guess_and_narrows_the_interval(tmp_path: Path) -> None:
    (cell, _), store = cells("mlp", epochs=30, patience=None), Store(tmp_path)
    guess = forecast([cell], store)
    assert (guess.guessed, guess.guesses) == (1, [cell])
    trials = trial_seconds([cell], data=None, device="cpu", threads=1)
    assert trials.keys() == {cell.group.key} and trials[cell.group.key] > 0
    tried = forecast([cell], store, trials)
    assert tried.guessed == 0 and tried.seconds == pytest.approx(trials[cell.group.key] + 0.1)
    assert tried.high / tried.low < guess.high / guess.low


def test_many_groups_average_out() -> None:
    one, many = cells("mlp")[:1], [cells("mlp", lr=lr)[0] for lr in np.linspace(0.01, 0.02, 6).tolist()]
    narrow, wide = (forecast(todo, Store("nowhere")) for todo in (many, one))
    assert narrow.high / narrow.seconds < wide.high / wide.seconds
    assert forecast([], Store("nowhere")).hours(2) == (0.0, 0.0, 0.0)


def test_after_a_run_it_says_how_far_off_it_was() -> None:
    assert (
        verdict(2.0, (1.0, 4.0), 3.0)
        == "planned 2.0 h (1.0 h to 4.0 h), took 3.0 h: 1.50 times the plan, inside its interval"
    )
    assert verdict(2.0, (1.0, 4.0), 5.0).endswith("2.50 times the plan, outside its interval")


def test_a_memory_limit_below_one_cell_is_refused_with_what_fits() -> None:
    small, wide = {"hidden": 8}, {"hidden": 4096}
    both = [{"method": "mlp", "overrides": {"model": model}} for model in (small, wide)]
    made = suite_of(methods=both, dataset="csbm:n=400", seeds="0:2").model_copy(update={"memory_limit_bytes": 2**20})
    with pytest.raises(UserError, match=r"expected at least \d+.*got 1048576.*2 of 4 cells may fit"):
        plan_suite(made, out="nowhere", device="cpu", jobs=1)
    enough = made.model_copy(update={"memory_limit_bytes": 2**30})
    assert len(plan_suite(enough, out="nowhere", device="cpu", jobs=1).todo) == 4


def test_a_plan_for_a_set_that_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    made = suite_of(methods=["mlp"], dataset="cora", split="planetoid-public", seeds="0:2")
    plan = plan_suite(made, out=tmp_path / "out", data=tmp_path, device="cpu", jobs=1)
    assert not plan.todo and plan.hours == 0
    assert "gkdbench data fetch cora" in plan.lines()[-1]


@pytest.mark.parametrize(
    ("head", "grid", "said"),
    [
        ({"protocol": 1}, {}, r"\[suite\]: expected protocol 2, got 1; .*tag protocol-1"),
        ({}, {"protocol": 1}, r"grid 2: expected protocol 2, got 1 beside others of protocol 2"),
    ],
)
def test_a_suite_that_mixes_protocols_is_refused(head: dict[str, int], grid: dict[str, int], said: str) -> None:
    one = {"datasets": ["csbm"], "splits": ["builtin-random"], "methods": [{"method": "mlp"}]}
    with pytest.raises(UserError, match=said):
        parse_suite({"suite": head, "grid": [one, one | grid]})
    assert parse_suite({"suite": {"protocol": 2}, "grid": [one | {"protocol": 2}]}).protocol == 2


def test_the_committed_timings_name_what_facts_are() -> None:
    assert all(len(one.numbers) == len(NUMBERS) and one.seconds > 0 for one in published_timings())
