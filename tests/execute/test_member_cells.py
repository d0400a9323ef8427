"""Further models of a run: cells of the same group, shared teachers, no rows of the group's own mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.execute.verify import verify
from gkdbench.records.key import base_seed, member_seed
from gkdbench.records.schema import Record
from gkdbench.records.store import Store
from gkdbench.report.board import build
from gkdbench.report.entries import entries

pytestmark = pytest.mark.usefixtures("warm_workers")


def _suite() -> Suite:
    methods = [
        {"method": "glnn", "epochs": 2},
        {"method": "ensemble", "of": "glnn", "settings": {"epochs": 2}, "members": 2},
        {"method": "ensemble", "of": "mlp", "settings": {"epochs": 2}, "members": 2},
    ]
    grid = {"datasets": ["digits-knn"], "splits": ["builtin-random"], "methods": methods}
    suite = parse_suite({"suite": {"name": "members", "seeds": [0, 1]}, "grid": [grid]})
    return suite.model_copy(update={"requirement_overrides": {"digits-knn": {"teacher": {"epochs": 2}}}})


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    out = tmp_path_factory.mktemp("members")
    run_suite(_suite(), out=out, jobs=1, device="cpu")
    assert verify(out).problems == []
    return {f"{record.method} {record.config.get('of', '')}".strip(): record for _, record in Store(out).records()}


def test_a_member_is_a_cell_of_the_solo_group_under_the_runs_teacher(records: dict[str, Record]) -> None:
    at = [(row.index, row.seed) for row in records["glnn"].rows]
    assert at == [(0, 0), (0, 1000), (1, 1), (1, 1001)]
    weights = {(row.index, row.seed): row.models[0].weights_sha256 for row in records["glnn"].rows}
    for row in records["glnn"].rows:
        teacher = next(r for r in records["teacher"].rows if (r.index, r.seed) == (row.index, base_seed(row.seed)))
        assert row.teachers == {"teacher": teacher.models[0].weights_sha256}
    for row in records["ensemble glnn"].rows:
        wanted = {f"member{m}": weights[row.index, member_seed(row.seed, m)] for m in range(2)}
        assert {role: sha for role, sha in row.teachers.items() if role != "teacher"} == wanted
        assert {model.name: model.weights_sha256 for model in row.models if model.name in wanted} == wanted


def test_only_the_runs_themselves_are_averaged(records: dict[str, Record]) -> None:
    (entry,) = entries(records["glnn"], "tran", frozenset({(0, 0), (0, 1000), (1, 1), (1, 1001)}))
    assert entry.complete and sorted(entry.scores) == [(0, 0), (1, 1)]


def test_an_ensemble_stands_beside_its_members_and_averages_their_scores(records: dict[str, Record]) -> None:
    board = build(list(records.values()))
    (column,) = board.tables
    titles = {entry.name: section.title for section in column.sections for entry in section.entries}
    solo = records["ensemble mlp"]
    assert titles[f"{solo.label}, ensemble"] == titles[records["mlp"].label] == "Trained alone"
    taught = records["ensemble glnn"]
    assert titles[f"{taught.label}, best on validation"] == titles[records["glnn"].label] != "Trained alone"
    mean, best, _ = entries(taught, "tran")
    of = {(row.index, row.seed): row.models[0] for row in records["glnn"].rows}
    for index, seed in mean.planned:
        members = [of[index, member_seed(seed, m)] for m in range(2)]
        assert mean.scores[index, seed] == pytest.approx(sum(m.scores["tran"].value for m in members) / 2)
        assert best.scores[index, seed] == max(members, key=lambda m: m.val).scores["tran"].value


def test_the_better_of_two_solo_models_on_validation_can_teach(tmp_path: Path) -> None:
    each = [{"backbone": "gcn"}, {"backbone": "sage", "epochs": 1}]
    settings = {"of": "teacher", "keep": "best", "each": each, "settings": {"epochs": 3}}
    student = {"method": "kd", "epochs": 2, "teacher_method": "ensemble", "teacher_settings": settings}
    grid = {"datasets": ["digits-knn"], "splits": ["builtin-random"], "methods": [student]}
    suite = parse_suite({"suite": {"name": "best", "seeds": [0]}, "grid": [grid]})
    run_suite(suite, out=tmp_path, jobs=1, device="cpu")
    assert verify(tmp_path).problems == []
    rows = {(r.method, r.config.get("backbone", "")): r.rows[0] for _, r in Store(tmp_path).records()}
    better = max((rows["teacher", "gcn"], rows["teacher", "sage"]), key=lambda row: row.models[0].val)
    (best,) = rows["ensemble", ""].models
    assert best.weights_sha256 == better.models[0].weights_sha256
    assert rows["kd", "gcn"].teachers == {"teacher": best.weights_sha256}
    assert {row.seed for row in rows.values()} == {0}


def test_the_mean_of_an_ensemble_can_teach(tmp_path: Path) -> None:
    settings = {"of": "mlp", "keep": "mean", "members": 2, "settings": {"epochs": 3}}
    student = {"method": "glnn", "epochs": 2, "teacher_method": "ensemble", "teacher_settings": settings}
    alone = {"method": "ensemble", "of": "mlp", "members": 2, "settings": {"epochs": 3}}
    grid = {"datasets": ["digits-knn"], "splits": ["builtin-random"], "methods": [student, alone]}
    run_suite(
        parse_suite({"suite": {"name": "mean", "seeds": [0]}, "grid": [grid]}), out=tmp_path, jobs=1, device="cpu"
    )
    assert verify(tmp_path).problems == []
    records = [record for _, record in Store(tmp_path).records()]
    rows = {(r.method, r.config.get("keep", "")): r.rows[0] for r in records}
    (mean,) = rows["ensemble", "mean"].models
    *_, ensemble = rows["ensemble", "all"].models
    assert (ensemble.name, mean.scores, mean.val) == ("ensemble", ensemble.scores, ensemble.val)
    member = next(r.rows[0] for r in records if r.method == "mlp").models[0]
    assert (mean.parameters, mean.macs) == (2 * member.parameters, 2 * (member.macs or 0))
    assert rows["glnn", ""].teachers["teacher"] == mean.weights_sha256


def test_members_come_with_their_ensemble_or_by_their_seed(tmp_path: Path) -> None:
    def planned(only: str) -> list[tuple[str, int]]:
        plan = plan_suite(_suite(), out=tmp_path, device="cpu", only=only)
        return sorted((cell.group.identity.method, cell.seed) for cell in plan.todo)

    assert planned("method=mlp,index=0") == [("mlp", 0)]
    assert planned("method=mlp,seed=1000") == [("mlp", 1000)]
    assert ("mlp", 1000) in planned("method=ensemble,index=0")


def test_seeds_of_a_suite_leave_room_for_members() -> None:
    with pytest.raises(UserError, match="less than 1000"):
        parse_suite(
            {"suite": {"seeds": [1000]}, "grid": [{"datasets": ["x"], "splits": ["y"], "methods": [{"method": "mlp"}]}]}
        )
    assert plan_suite(_suite(), device="cpu").todo
