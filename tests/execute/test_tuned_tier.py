"""The tuned tier: trials on seeds of their own, the best on validation runs, and never in a table with the others."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.execute.tuning import trial_settings
from gkdbench.execute.verify import verify
from gkdbench.records.key import TRIAL, TUNING_SEEDS
from gkdbench.records.schema import Record
from gkdbench.records.store import Store
from gkdbench.report.board import build

pytestmark = pytest.mark.usefixtures("warm_workers")
SPACE = {"lr": [0.0001, 0.02], "model.dropout": [0.0, 0.9]}


def _suite(**entry: object) -> Suite:
    methods = [{"method": "mlp", "epochs": 4}, {"method": "mlp", "epochs": 4, "search": SPACE, "trials": 3} | entry]
    grid = {"datasets": ["digits-knn"], "splits": ["builtin-random"], "methods": methods}
    return parse_suite({"suite": {"name": "tuned", "seeds": [0, 1]}, "grid": [grid]})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    before = plan_suite(_suite(), out=folder, device="cpu")
    assert before.waiting == 1 and len(before.todo) == 2 + 3 * 3
    summary = run_suite(_suite(), out=folder, jobs=1, device="cpu")
    assert (summary.ok, summary.failures) == (2 + 3 * 3 + 2, [])
    after = plan_suite(_suite(), out=folder, device="cpu")
    assert (after.waiting, after.todo, len(after.cached)) == (0, [], 13)
    assert verify(folder).problems == []
    return folder


def test_only_rows_whose_trials_are_planned_are_waited_for(tmp_path: Path) -> None:
    grid = _suite().grids[0]
    suite = _suite().model_copy(update={"grids": [grid.model_copy(update={"tier": "full"})]})
    assert plan_suite(suite, out=tmp_path, device="cpu").waiting == 1
    assert plan_suite(suite, out=tmp_path, device="cpu", tier="core").waiting == 0
    assert plan_suite(_suite(), out=tmp_path, device="cpu", only={"seed": "0"}).waiting == 0


@pytest.fixture(scope="module")
def records(out: Path) -> list[Record]:
    return [record for _, record in Store(out).records()]


def test_the_settings_with_the_best_validation_score_over_the_trials_are_run(records: list[Record]) -> None:
    trials = [record for record in records if record.tuning == TRIAL]
    assert len(trials) == 3
    assert all([row.seed for row in record.rows] == list(TUNING_SEEDS) for record in trials)
    best = max(trials, key=lambda record: fmean(row.models[0].val for row in record.rows))
    (tuned,) = [record for record in records if record.trials]
    assert (tuned.tier, tuned.trials, tuned.config) == ("tuned", 3, best.config)
    assert tuned.tuning == {"space": SPACE, "trials": 3, "seeds": list(TUNING_SEEDS)}
    assert [(row.index, row.seed) for row in tuned.rows] == [(0, 0), (1, 1)]


def test_published_settings_are_a_trial_and_keep_a_table_of_their_own(records: list[Record]) -> None:
    (published,) = [record for record in records if record.tier == "published"]
    assert published.config in [record.config for record in records if record.tuning == TRIAL]
    board = build(records)
    assert sorted(column.notes for column in board.tables) == [(), ("tuned, 3 trials",)]
    assert [len(column.entries) for column in board.tables] == [1, 1]


def test_points_are_the_same_for_every_method_and_distinct() -> None:
    points = trial_settings(SPACE, 5)
    assert points[0] == {} and points == trial_settings(SPACE, 5)
    assert {(p["lr"], p["model"]["dropout"]) for p in points[1:]} == {(a, b) for a in SPACE["lr"] for b in (0.0, 0.9)}
    with pytest.raises(UserError, match=r"search: expected 5 or more points .*, got 4"):
        trial_settings(SPACE, 6)


def test_tuning_seeds_cannot_be_reported() -> None:
    for seeds in ("99:103", [101]):
        with pytest.raises(UserError, match="not kept for tuning, got"):
            parse_suite({"suite": {"seeds": seeds}, "grid": []})
    with pytest.raises(UserError, match="did you mean 'lr'"):
        plan_suite(_suite(search={"lrr": [1, 2]}), device="cpu")
