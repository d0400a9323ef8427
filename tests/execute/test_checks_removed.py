"""Positive controls of `verify`: each check is the only one that finds a change; without it the change passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tampering import Plain, changed, first, keep_splits, named, seal, student

from gkdbench.execute.runner import RunSummary
from gkdbench.execute.verify import verify
from gkdbench.records.key import identity_of
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import read_npz
from gkdbench.records.store import record_bytes


@pytest.fixture
def copy(toy_run: tuple[Path, RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keep_splits(monkeypatch)
    return Path(shutil.copytree(toy_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def at(*place: object, value: object) -> Callable[[Plain], Plain]:
    """One leaf of the record with another value."""
    return lambda facts: changed(facts, place, value)


def of_model(name: str, value: object) -> Callable[[Plain], Plain]:
    return at("rows", 0, "models", 0, name, value=value)


def more(*place: object) -> Callable[[Plain], Plain]:
    """One number of the record with one more."""

    def change(facts: Plain) -> Plain:
        number = facts
        for part in place:
            number = number[part]  # type: ignore[index]
        return changed(facts, place, number + 1)

    return change


def larger_models(facts: Plain) -> Plain:
    for row in facts["rows"]:
        row["models"][0]["parameters"] += 1
    return facts


def reading_the_graph(facts: Plain) -> Plain:
    first(facts).update(needs="graph", hops=1)
    return facts


def unflagged_teacher(facts: Plain) -> Plain:
    facts["rows"][0]["flags"].remove("flat teacher")
    return facts


MODEL = ("rows", 0, "models", 0)
CHECKS: dict[str, Callable[[Plain], Plain]] = {
    "record_differences": at("tier", value="tuned"),
    "form_differences": at("label", value="another"),
    "origin_differences": at("provenances", 0, "gpu", value="a GPU"),
    "row_differences": at("rows", 0, "traceback", value="none"),
    "uneven_rows": reading_the_graph,
    "uneven_sizes": of_model("macs", 1),
    "sidecar_differences": more("predictions", "size_bytes"),
    "data_differences": more("data", "nodes"),
    "note_difference": at("data", "note", value="another"),
    "epoch_differences": more("rows", 0, "epochs"),
    "look_differences": more("rows", 0, "looks"),
    "rescore": more(*MODEL, "scores", "ind", "n"),
    "curve_differences": at(*MODEL, "audit", "ind", "final", value=0.015625),
    "selection_problems": of_model("val_loss", 0.015625),
    "other_records.teacher_differences": at("teachers", "teacher", "config", "epochs", value=30),
    "other_records.check_sizes": larger_models,
    "other_records.check_teachers": at("rows", 0, "teachers", "teacher", value="0" * 64),
    "other_records.check_flat_teachers": unflagged_teacher,
}


def nothing(*given: object, **more: object) -> list[object]:
    return []


@pytest.mark.parametrize("check", CHECKS)
def test_without_its_check_a_change_passes(copy: Path, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    path = student(copy)
    path.write_text(json.dumps(CHECKS[check](json.loads(path.read_text()))))
    assert named(verify(copy), path)
    monkeypatch.setattr(f"gkdbench.execute.verify.{check}", nothing)
    assert not named(verify(copy), path)


def test_without_their_checks_arrays_that_were_changed_pass(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spike in the stored loss, with every hash made true; then the hashes themselves."""
    path = student(copy)
    facts, arrays = json.loads(path.read_text()), read_npz(path.with_suffix(".npz"))
    arrays["0-0/terms/loss"] = np.array([1.0, 0.01, 1.0, 1.0], dtype=np.float32)
    seal(path, arrays, facts)
    assert named(verify(copy), path)
    monkeypatch.setattr("gkdbench.execute.verify.spike_differences", nothing)
    assert not named(verify(copy), path)
    path.write_text(json.dumps(changed(facts, ("predictions", "sha256"), "0" * 64)))
    assert named(verify(copy), path)
    whole = "gkdbench.execute.verification.stored_arrays.checked_sidecar"
    monkeypatch.setattr(whole, lambda path, record: path.with_suffix(".npz").read_bytes())
    assert not named(verify(copy), path)


def test_without_its_check_a_copy_under_another_key_passes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    facts["config"]["mode"] = "fine"
    key = identity_of(Record.model_validate(facts)).key
    for row in facts["rows"]:
        row["command"] = row["command"].replace(facts["key"][:12], key[:12])
    facts["key"], target = key, path.with_name(f"toy-{key[:12]}.json")
    facts["predictions"]["path"] = target.with_suffix(".npz").name
    target.write_bytes(record_bytes(Record.model_validate(facts)))
    shutil.copy(path.with_suffix(".npz"), target.with_suffix(".npz"))
    assert verify(copy).exit_code == 3
    monkeypatch.setattr("gkdbench.execute.verify.other_records.check_copies", nothing)
    assert verify(copy).exit_code == 0


def test_without_its_check_rows_left_out_are_not_listed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = student(copy)
    facts, arrays = json.loads(path.read_text()), read_npz(path.with_suffix(".npz"))
    facts["rows"].pop(0)
    for name in [name for name in arrays if name.startswith("0-0/")]:
        del arrays[name]
    seal(path, arrays, facts)
    report = verify(copy)
    assert len(report.incomplete) == 1 and str(path) in report.incomplete[0]
    assert report.exit_code == 0, "a run that is not finished is no error"
    monkeypatch.setattr("gkdbench.execute.verify.other_records.check_planned", nothing)
    assert verify(copy).incomplete == []


def test_only_its_bound_keeps_a_generated_set_from_being_built(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(copy).exit_code == 0
    monkeypatch.setattr("gkdbench.execute.verify.LARGEST_GENERATED", 100)
    monkeypatch.setattr("gkdbench.execute.verify.prepare_named", None)  # nothing is prepared
    report = verify(copy)
    assert (report.exit_code, report.scores) == (3, 0)
    assert all("larger than the generated sets" in line for line in report.not_checked)
