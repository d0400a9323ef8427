"""Sweeps as cells: a key of their own, the same training and teachers, numbers that `verify` computes again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.toy_plugin import DATASET, on_path

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.execute.verify import verify
from gkdbench.records.schema import Record
from gkdbench.records.store import Store, load_record, record_bytes, record_paths
from gkdbench.report.board import build

SWEEPS = {"edge_drop": [0.5], "feature_noise": [1, 0.3]}


def suite(*sweeps: dict[str, Any]) -> Suite:
    """A toy and its student, once for each of `sweeps`."""
    grid = {"datasets": [DATASET], "splits": ["builtin-random"]}
    methods = [{"method": "toy"}, {"method": "toy", "taught": True}]
    grids = [grid | {"methods": methods, "sweeps": levels} for levels in sweeps]
    return parse_suite({"suite": {"name": "swept", "seeds": "0:2"}, "grid": grids})


@pytest.fixture(scope="module")
def out(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    with on_path(plugin):
        summary = run_suite(suite({}, SWEEPS), out=folder, jobs=1, device="cpu")
        assert (summary.ok, summary.failures) == (2 * 5, [])  # one teacher serves the students of both grids
    return folder


@pytest.fixture(scope="module")
def records(out: Path) -> list[Record]:
    return [record for _, record in Store(out).records()]


def test_a_swept_group_is_the_same_training_under_another_key(records: list[Record]) -> None:
    for taught in (False, True):
        of = [r for r in records if bool(r.teachers) == taught and r.config["epochs"] == 4]
        plain, swept = sorted(of, key=lambda record: len(record.sweeps))
        assert (plain.sweeps, swept.sweeps) == ({}, {"edge_drop": [0.5], "feature_noise": [0.3, 1.0]})
        assert plain.key != swept.key and plain.teachers == swept.teachers
        for one, two in zip(plain.rows, swept.rows, strict=True):
            assert one.models == two.models and one.sweeps == []
            assert [(s.kind, s.level) for s in two.sweeps] == [
                ("clean", 0.0),
                ("feature_noise", 0.3),
                ("feature_noise", 1.0),
                ("edge_drop", 0.5),
            ]
            assert two.sweeps[2].scores["model"]["tran"] < two.sweeps[0].scores["model"]["tran"]


def test_what_is_off_leaves_no_trace(out: Path) -> None:
    for path in record_paths(out):
        assert ('"sweeps"' in path.read_text()) == bool(load_record(path).sweeps)
        assert record_bytes(load_record(path)) == path.read_bytes()


def test_done_is_done(out: Path) -> None:
    plan = plan_suite(suite(SWEEPS, {}), out=out, device="cpu")
    assert (plan.todo, len(plan.cached)) == ([], 10)


def test_verify_computes_sweeps_again(out: Path, tmp_path: Path) -> None:
    report = verify(out)
    assert report.problems == [] and report.scores == 10 * 2 + 4 * 4
    copy = Path(shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))
    path = next(p for p in record_paths(copy) if load_record(p).sweeps)
    record = load_record(path)
    better = record.rows[0].sweeps[1].model_copy(update={"scores": {"model": {"tran": 0.99}}})
    row = record.rows[0].model_copy(update={"sweeps": [record.rows[0].sweeps[0], better, *record.rows[0].sweeps[2:]]})
    path.write_bytes(record_bytes(record.model_copy(update={"rows": [row, *record.rows[1:]]})))
    text = f"{path}: row 0-0: scores under feature_noise 0.3 are not what the side-car gives"
    assert verify(copy).problems == [text]


def test_a_table_shows_a_training_once(records: list[Record]) -> None:
    whole, swept = build(records), build([r for r in records if r.sweeps])
    assert [len(column.entries) for column in whole.tables] == [3]
    assert [len(column.entries) for column in swept.tables] == [2]


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ({"feature_noise": [0.0]}, "sweeps.feature_noise.0: expected .*, got 0.0"),
        ({"feature_noise": []}, "sweeps.feature_noise: expected .*, got "),
        ({"edge_drop": [1.5]}, "sweeps.edge_drop.0: expected .*, got 1.5"),
        ({"edge_dorp": [0.5]}, "edge_dorp"),
        ({"clean": [0.5]}, "clean"),
    ],
)
def test_levels_are_probabilities_of_known_kinds(sweeps: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        suite(sweeps)
