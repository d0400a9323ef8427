"""A run: its records, its resume, its equality under any number of workers, its failures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.same_records import contents, leftovers
from support.toy_plugin import DATASET, modes_suite, taught_suite

from gkdbench.errors import UnknownName, UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.runner import RunSummary
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.records.schema import Row
from gkdbench.records.store import Store

Run = tuple[Path, RunSummary]


def test_every_cell_has_scores_in_every_column(toy_run: Run) -> None:
    out, summary = toy_run
    assert (summary.ok, summary.cached, summary.failures) == (12, 0, [])
    records = [record for _, record in Store(out).records()]
    assert len(records) == 6
    for record in records:
        assert [(row.index, row.seed) for row in record.rows] == [(0, 0), (1, 1)]
        assert record.predictions is not None and record.predictions.kept
        for row in record.rows:
            assert list(row.models[0].scores) and set(row.models[0].scores) == set(record.columns)
    assert leftovers(out) == []


def test_a_student_names_the_weights_of_its_teachers_row(toy_run: Run) -> None:
    out, _ = toy_run
    records = {record.key: record for _, record in Store(out).records()}
    students = [record for record in records.values() if record.teachers]
    assert len(students) == 2
    for student in students:
        rows = records[student.teachers["teacher"].key].rows
        assert [row.teachers["teacher"] for row in student.rows] == [row.models[0].weights_sha256 for row in rows]


@pytest.mark.parametrize("jobs", [2, pytest.param(4, marks=pytest.mark.full)])
def test_several_workers_give_the_records_of_one(toy_run: Run, tmp_path: Path, jobs: int) -> None:
    summary = run_suite(taught_suite(), out=tmp_path / "out", jobs=jobs, device="cpu")
    assert summary.ok == 12
    assert contents(tmp_path / "out") == contents(toy_run[0])


def test_a_second_run_has_nothing_to_do_and_a_cut_one_goes_on(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_suite(taught_suite(), out=out, jobs=1, device="cpu", max_cells=5)
    assert first.ok == 5
    second = run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert (second.ok, second.cached) == (7, 5)
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    third = run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert (third.ok, third.cached) == (0, 12)
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before
    assert contents(out) == contents(toy_run[0])


def test_a_teacher_without_its_weights_is_trained_again_for_new_students(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "clone"
    shutil.copytree(toy_run[0], out, ignore=shutil.ignore_patterns(".*"))
    student = next(path for path, record in Store(out).records() if record.teachers and record.setting == "tran")
    student.unlink()
    plan = plan_suite(taught_suite(), out=out, device="cpu")
    assert (len(plan.todo), len(plan.again)) == (4, 2)
    run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert contents(out) == contents(toy_run[0])


def test_a_teacher_that_another_run_finished_without_keeping_it_is_trained_again(
    toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "clone"
    shutil.copytree(toy_run[0], out, ignore=shutil.ignore_patterns(".*"))
    next(path for path, record in Store(out).records() if record.teachers and record.setting == "tran").unlink()
    monkeypatch.setattr("gkdbench.execute.plan._weights_gone", lambda *_: [])  # it finished after the plan was made
    summary = run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert (summary.ok, summary.failures) == (4, [])
    assert contents(out) == contents(toy_run[0])
    assert leftovers(out) == []


def test_a_teacher_that_does_not_reproduce_its_row_stops_the_run(toy_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "clone"
    shutil.copytree(toy_run[0], out, ignore=shutil.ignore_patterns(".*"))
    records = dict(Store(out).records())
    student = next(path for path, record in records.items() if record.teachers and record.setting == "tran")
    key = records[student].teachers["teacher"].key
    teacher = next(path for path, record in records.items() if record.key == key)
    student.unlink()
    weights = records[teacher].rows[0].models[0].weights_sha256
    teacher.write_text(teacher.read_text().replace(weights, "0" * 64))
    with pytest.raises(UserError, match="trained again for its students: expected the weights of its record"):
        run_suite(taught_suite(), out=out, jobs=1, device="cpu")
    assert not list(out.rglob("*.lock"))


@pytest.fixture(scope="module")
def failures(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Row]]:
    """One run of every way to fail that leaves the worker alive, between two cells that behave."""
    out = tmp_path_factory.mktemp("failures") / "out"
    modes = ("good", "nan", "shape", "silent", "raise", "memory", "extra", "peek", "slow", "print")
    suite = modes_suite(*modes, time_limit_s=1.0, memory_limit_bytes=2**30)
    run_suite(suite, out=out, jobs=1, device="cpu")
    return out, {record.config["mode"]: record.rows[0] for _, record in Store(out).records()}


@pytest.mark.parametrize(
    ("mode", "status", "phase", "reason"),
    [
        ("nan", "nan", "fit", "not finite"),
        ("shape", "error", "fit", r"expected logits \[400, 4\], got \(400, 1\)"),
        ("silent", "error", "predict", "expected selectable reports, got none"),
        ("raise", "error", "fit", "RuntimeError: the toy was told to raise"),
        ("memory", "oom", "fit", "can't allocate memory"),
        ("extra", "error", "fit", "ratio"),
        ("peek", "error", "fit", "inside a worker"),
        ("slow", "timeout", "fit", "time limit"),
    ],
)
def test_a_failure_is_a_record(
    failures: tuple[Path, dict[str, Row]], mode: str, status: str, phase: str, reason: str
) -> None:
    row = failures[1][mode]
    assert (row.status, row.phase, row.models) == (status, phase, [])
    assert re.search(reason, row.reason or "")
    assert row.command.startswith("gkdbench run toys --only method=toy,dataset=csbm:n=400,split=builtin-random,index=0")


def test_cells_around_failures_are_untouched(failures: tuple[Path, dict[str, Row]]) -> None:
    rows = failures[1]
    assert rows["good"].status == rows["print"].status == "ok"
    assert rows["good"].models == rows["print"].models
    assert leftovers(failures[0]) == []


def test_failures_wait_for_retry(failures: tuple[Path, dict[str, Row]]) -> None:
    suite = modes_suite("good", "nan", "raise")
    assert plan_suite(suite, out=failures[0], device="cpu").todo == []
    again = plan_suite(suite, out=failures[0], device="cpu", retry=True)
    assert sorted(cell.group.identity.config["mode"] for cell in again.todo) == ["nan", "raise"]


def test_the_command_of_a_row_names_its_cell_alone(failures: tuple[Path, dict[str, Row]], tmp_path: Path) -> None:
    command = failures[1]["raise"].command.split()
    only = command[command.index("--only") + 1]
    plan = plan_suite(modes_suite("good", "nan", "raise"), out=tmp_path, device="cpu", only=only)
    assert [cell.group.identity.config["mode"] for cell in plan.todo] == ["raise"]


def test_only_brings_requirements_along(tmp_path: Path) -> None:
    plan = plan_suite(taught_suite(), out=tmp_path, device="cpu", only="seed=1,split=builtin-random")
    assert [cell.seed for cell in plan.todo] == [1, 1, 1]
    student = next(cell for cell in plan.todo if cell.group.teachers)
    chosen = plan_suite(taught_suite(), out=tmp_path, device="cpu", only=student.selector())
    assert [cell.key for cell in chosen.todo] == [student.requires["teacher"].key, student.key]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("method=tyo", r"unknown method in this suite 'tyo'; did you mean 'toy'"),
        ("metod=toy", r"no field 'metod'; did you mean 'method'"),
        ("seed=one", "seed: expected an integer"),
        ("toy", "field=value"),
        ("seed=0,index=1", "no cell of this suite matches"),
    ],
)
def test_only_refuses_what_matches_nothing(tmp_path: Path, only: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_suite(taught_suite(), out=tmp_path, device="cpu", only=only)


def test_mixed_threads_are_refused(toy_run: Run) -> None:
    with pytest.raises(UserError, match=r"expected runs of 2 thread\(s\), got 1"):
        plan_suite(taught_suite(), out=toy_run[0], device="cpu", threads=2)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(UserError, match="device"):
        plan_suite(taught_suite(), out=tmp_path, device=device)


def test_absent_data_are_a_line_in_the_plan(tmp_path: Path) -> None:
    grid = [{"datasets": ["cora"], "splits": ["planetoid-public"], "methods": [{"method": "toy"}]}]
    plan = plan_suite(parse_suite({"grid": grid}), out=tmp_path, device="cpu", data=tmp_path)
    assert plan.todo == []
    assert "cora on planetoid-public: 10 cells skipped: data absent" in "\n".join(plan.lines())


def test_data_that_only_leaves_out_are_not_looked_for(tmp_path: Path) -> None:
    methods = [{"method": "toy"}]
    grid = [{"datasets": ["cora"], "splits": ["planetoid-public"], "methods": methods}]
    grid += [{"datasets": [DATASET], "splits": ["builtin-random"], "methods": methods}]
    suite = parse_suite({"suite": {"seeds": "0:1"}, "grid": grid})
    plan = plan_suite(suite, out=tmp_path, device="cpu", data=tmp_path, only=f"dataset={DATASET}")
    assert (len(plan.todo), plan.absent) == (1, [])
    assert len(plan_suite(suite, out=tmp_path, device="cpu", data=tmp_path, only="split=planetoid-public").absent) == 1
    with pytest.raises(UserError, match="dataset in this suite"):
        plan_suite(suite, out=tmp_path, device="cpu", data=tmp_path, only="dataset=csbn")


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write .*; .*--out"):
        run_suite(modes_suite("good"), out=target / "out", jobs=1, device="cpu")


def test_unknown_things_are_refused_by_name(tmp_path: Path) -> None:
    def grid(**changes: object) -> Suite:
        base = {"datasets": ["csbm"], "splits": ["builtin-random"], "methods": [{"method": "toy"}]}
        return parse_suite({"grid": [base | changes]})

    cases = [
        ({"methods": [{"method": "toyy"}]}, "unknown method 'toyy'; did you mean 'toy'"),
        ({"datasets": ["csmb"]}, "unknown dataset 'csmb'"),
        ({"splits": ["builtin-randon"]}, "unknown split 'builtin-randon'"),
        ({"splits": ["planetoid-public"]}, "csbm has no split 'planetoid-public': expected one of"),
        ({"settings": ["tran"]}, "grid 1: unknown key 'settings'"),
        (
            {"methods": [{"method": "toy", "epoch": 3}]},
            "unknown setting of method 'toy' 'epoch'; did you mean 'epochs'",
        ),
        ({"methods": [{"method": "toy", "epochs": "3"}]}, "epochs: expected a valid integer, got '3'"),
        ({"methods": [{"method": "toy", "lr": -1.0}]}, "lr: expected a value greater than 0, got -1.0"),
        (
            {"datasets": ["digits-grid"], "splits": ["random-80-10-10"]},
            "expected node tasks, got digits-grid, a graph task",
        ),
    ]
    for changes, message in cases:
        with pytest.raises((UserError, UnknownName), match=message):
            plan_suite(grid(**changes), out=tmp_path, device="cpu")
