"""`verify` believes nothing: one flipped bit, one changed prediction, one borrowed teacher is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gkdbench.data.families import split_family
from gkdbench.data.splits import prepare_named
from gkdbench.errors import UserError
from gkdbench.execute.runner import RunSummary
from gkdbench.execute.verify import verify
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.scoring import arrays_sha256, truth_of
from gkdbench.records.key import identity_of
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays, bytes_sha256, npz_bytes, read_npz, row_arrays, row_prefix
from gkdbench.records.store import load_record, record_bytes, record_paths

Run = tuple[Path, RunSummary]


@pytest.fixture
def copy(toy_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def inductive(copy: Path) -> Path:
    """The record of the inductive teacher: it has every column."""
    return next(p for p in record_paths(copy) if "prod" in load_record(p).columns and not load_record(p).teachers)


def rewrite(path: Path, change: Callable[[SidecarArrays], None]) -> None:
    """Change a side-car, and make every hash in the record true again."""
    record = load_record(path)
    assert record.predictions is not None
    sidecar = path.with_name(record.predictions.path)
    arrays = read_npz(sidecar)
    change(arrays)
    data = npz_bytes(arrays)
    sidecar.write_bytes(data)
    rows = [
        row.model_copy(update={"predictions_sha256": arrays_sha256(row_arrays(arrays, row.index, row.seed))})
        for row in record.rows
    ]
    described = record.predictions.model_copy(update={"sha256": bytes_sha256(data), "size_bytes": len(data)})
    path.write_bytes(record_bytes(record.model_copy(update={"rows": rows, "predictions": described})))


def replace_in_record(path: Path, change: Callable[[Record], dict[str, object]]) -> None:
    record = load_record(path)
    path.write_bytes(record_bytes(record.model_copy(update=change(record))))


def test_an_untouched_run_re_computes(toy_run: Run) -> None:
    report = verify(toy_run[0])
    assert (report.problems, report.not_checked, report.exit_code) == ([], [], 0)
    assert (report.records, report.scores) == (6, 3 * 2 * 2 + 3 * 2 * 5)


def test_a_flipped_bit_is_found(copy: Path) -> None:
    path = inductive(copy)
    sidecar = path.with_suffix(".npz")
    data = bytearray(sidecar.read_bytes())
    data[len(data) // 2] ^= 1
    sidecar.write_bytes(data)
    report = verify(copy)
    assert report.exit_code == 1
    assert [str(path) in problem and "expected sha256" in problem for problem in report.problems] == [True]


@pytest.mark.parametrize("column", ["tran", "ind", "coldstart", "val"])
@pytest.mark.parametrize("was_right", [True, False])
def test_a_changed_prediction_is_found_though_every_hash_is_true(copy: Path, column: str, was_right: bool) -> None:
    """Also one that leaves the accuracy as it was: from one wrong class to another."""
    path = inductive(copy)
    problem = prepare_named("csbm:n=400", "builtin-random-ind20", 0)
    truth = truth_of(problem, make_evaluation_graphs(problem))[column]

    def change(arrays: SidecarArrays) -> None:
        selected = arrays[f"{row_prefix(0, 0)}model/{column}/selected"]
        at = int(np.flatnonzero((selected == truth) == was_right)[0])
        selected[at] = next(c for c in range(4) if c not in (truth[at], selected[at]))

    rewrite(path, change)
    report = verify(path)
    assert report.exit_code == 1
    assert all(problem.startswith(f"{path}: row 0-0: model: ") for problem in report.problems)
    assert any(column in problem for problem in report.problems)


def test_a_changed_score_or_audit_is_found(copy: Path) -> None:
    path = inductive(copy)

    def better(record: Record) -> dict[str, object]:
        row = record.rows[0]
        model = row.models[0]
        audit = {name: a.model_copy(update={"peak": 1.0}) for name, a in model.audit.items()}
        scores = model.scores | {"ind": model.scores["ind"].model_copy(update={"value": 0.999})}
        changed = model.model_copy(update={"scores": scores, "audit": audit})
        return {"rows": [row.model_copy(update={"models": [changed]}), *record.rows[1:]]}

    replace_in_record(path, better)
    found = "\n".join(verify(path).problems)
    assert "ind is 0.999000 in the record" in found
    assert "audit peak of ind is 1.000000" in found


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("val/curve", "val is"),
        ("val/loss", "val_loss is"),
        ("tran/curve", "tran is"),
    ],
)
def test_a_changed_curve_is_found_though_every_hash_is_true(copy: Path, what: str, message: str) -> None:
    path = inductive(copy)

    def change(arrays: SidecarArrays) -> None:
        prefix = row_prefix(0, 0)
        at = arrays[f"{prefix}model/epochs"] == load_record(path).rows[0].models[0].selected_epoch
        arrays[f"{prefix}model/{what}"][at] -= 0.01

    rewrite(path, change)
    assert any(f"model: {message}" in problem for problem in verify(path).problems)


@pytest.mark.parametrize("version", [1, 2])
def test_the_key_is_checked_under_every_known_protocol(copy: Path, version: int) -> None:
    path = inductive(copy)
    facts: dict[str, object] = {"protocol_version": version, "selection": "first" if version == 1 else "loss"}
    replace_in_record(path, lambda record: facts | {"config": {"lr": 0.1}})
    assert any("is not that of its own fields" in problem for problem in verify(path).problems)
    replace_in_record(path, lambda record: {"key": identity_of(record).key})
    assert not any("is not that of its own fields" in problem for problem in verify(path).problems)


@pytest.mark.parametrize("version", [0, 3])
def test_an_unknown_protocol_is_found(copy: Path, version: int) -> None:
    path = inductive(copy)
    replace_in_record(path, lambda record: {"protocol_version": version})
    assert f"{path}: protocol_version: expected one of 1, 2, got {version}; update gkdbench" in verify(path).problems


def test_what_no_key_covers_is_checked_against_protocol_and_split(copy: Path) -> None:
    path = inductive(copy)
    replace_in_record(path, lambda record: {"protocol_version": 1, "selection": "later", "audit_only": True})
    problems = "\n".join(verify(path).problems)
    assert "selection: expected first, the rule of protocol 1, got later" in problems
    assert "audit_only: expected False on builtin-random-ind20, got True" in problems


def test_a_borrowed_teacher_is_found(copy: Path) -> None:
    student = next(p for p in record_paths(copy) if load_record(p).teachers)

    def borrow(record: Record) -> dict[str, object]:
        return {"rows": [row.model_copy(update={"teachers": {"teacher": "0" * 64}}) for row in record.rows]}

    replace_in_record(student, borrow)
    assert "its teacher has weights 000000000000" in "\n".join(verify(copy).problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: {"config": {"lr": 0.1}}, "is not that of its own fields"),
        (lambda record: {"revision": 7}, "revision 7"),
        (lambda record: {"method": "mlp"}, "got toy-"),
        (lambda record: {"rows": list(reversed(record.rows))}, "not sorted"),
    ],
)
def test_a_record_that_contradicts_itself_is_found(
    copy: Path, change: Callable[[Record], dict[str, object]], message: str
) -> None:
    path = inductive(copy)
    replace_in_record(path, change)
    report = verify(path)
    assert report.exit_code == 1
    assert any(message in problem for problem in report.problems)


def test_a_missing_side_car_and_a_broken_record_are_named(copy: Path) -> None:
    first, second = record_paths(copy)[:2]
    first.with_suffix(".npz").unlink()
    second.write_text("{")
    problems = "\n".join(verify(copy).problems)
    assert f"{first}: side-car" in problems and f"{second}: is not a valid record" in problems


def test_absent_data_are_said_and_not_taken_for_right(copy: Path, tmp_path: Path) -> None:
    source = record_paths(copy)[0]
    record = load_record(source)
    family = split_family("planetoid-public")
    facts = {"name": "cora", "preprocessing": dict(family.preprocessing)}
    described = {"dataset": "cora", "split": family.id, "data": record.data.model_copy(update=facts)}
    moved = record.model_copy(update=described)
    moved = moved.model_copy(update={"key": identity_of(moved).key})
    command = f"gkdbench run toys --only split={family.id}"
    rows = [
        row.model_copy(update={"command": f"{command},index={row.index},seed={row.seed},key={moved.key[:12]}"})
        for row in moved.rows
    ]
    moved = moved.model_copy(update={"rows": rows})
    name = f"toy-{moved.key[:12]}"
    assert moved.predictions is not None
    moved = moved.model_copy(update={"predictions": moved.predictions.model_copy(update={"path": f"{name}.npz"})})
    target = tmp_path / "cora" / f"{name}.json"
    target.parent.mkdir()
    target.write_bytes(record_bytes(moved))
    shutil.copy(source.with_suffix(".npz"), target.with_suffix(".npz"))
    report = verify(target, data=tmp_path)
    assert (report.exit_code, report.problems) == (3, [])
    assert all("data absent" in line and str(target) in line for line in report.not_checked)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got no records below it"):
        verify(tmp_path)


def test_hashes_cover_order_and_type() -> None:
    one = {"a": np.arange(3, dtype=np.uint8)}
    assert arrays_sha256(one) != arrays_sha256({"a": np.arange(3, dtype=np.int16)})
