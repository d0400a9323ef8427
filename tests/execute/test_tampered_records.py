"""Every leaf of a record, changed alone, is found by `verify`, or is in the list of leaves that nothing contradicts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tampering import Plain, changed, first, keep_splits, named, seal, student

from gkdbench.execute.runner import RunSummary
from gkdbench.execute.verification.curve_fields import look_differences, spike_differences
from gkdbench.execute.verification.data_fields import LARGEST_GENERATED, generated_size
from gkdbench.execute.verification.findings import VerifyReport
from gkdbench.execute.verification.other_records import check_sizes
from gkdbench.execute.verification.row_fields import uneven_sizes
from gkdbench.execute.verify import verify
from gkdbench.protocol.scoring import DECLARED_LOOKS
from gkdbench.records.key import identity_of
from gkdbench.records.schema import Provenance, Record
from gkdbench.records.sidecar import SidecarArrays, read_npz, row_arrays
from gkdbench.records.store import load_record, record_bytes, record_paths

NOTHING_CONTRADICTS = {
    "threads",
    *(
        f"rows.{name}"
        for name in ("flags", "extra", "train_s", "train_j", "peak_memory_bytes", "host", "pid", "finished")
    ),
    *(f"rows.models.{name}" for name in ("train_ce_ratio", "weights_sha256")),
    *(f"provenances.{name}" for name in Provenance.model_fields if name not in ("gpu", "cuda", "driver")),
}
"""Leaves, as in docs/protocol.md, section 4.7: only a second training, or nobody, can tell."""


@pytest.fixture(autouse=True)
def prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of this file is of the same splits."""
    keep_splits(monkeypatch)


@pytest.fixture
def copy(toy_run: tuple[Path, RunSummary], tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value without parts, with its place; of rows and models the first alone."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, (*place, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from leaves(value[0], (*place, 0))
    else:
        yield place, value


def others(value: Any) -> list[Any]:
    """Other values of the same type, where there is one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value - 0.01 if value > 0.5 else value + 0.01]
    if isinstance(value, str):
        return ["0" * len(value)] if re.fullmatch("[0-9a-f]{40,64}", value) else [value + "x"]
    if value is None:
        return ["x", 1]
    return [{"x": 1.0}] if value == {} else [value[:-1] or ["x"], [*value, "x"]]


def test_every_changed_leaf_is_found_but_for_those_that_nothing_contradicts(copy: Path) -> None:
    """The list of the latter says neither more nor less than what is left, and the documents say the same."""
    path = student(copy)
    facts = json.loads(path.read_text())
    facts["rows"][0].setdefault("train_j", None)  # written where a processor counts its energy
    teacher = next(iter(facts["teachers"].values()))["key"]
    for other in record_paths(copy):  # the student and its teacher alone: each change is one call
        if other != path and load_record(other).key != teacher:
            other.unlink()
    assert verify(copy).exit_code == 0
    missed, judged = set(), 0
    for place, value in leaves(facts):
        name = ".".join(str(part) for part in place if not isinstance(part, int))
        for new in others(value):
            path.write_text(json.dumps(changed(facts, place, new)))
            judged += 1
            if not named(verify(copy), path):
                missed.add(re.sub(r"^(rows\.extra|provenances\.allocator)\..*", r"\1", name))
                break
    assert (missed ^ NOTHING_CONTRADICTS, judged > 120) == (set(), True)


def test_the_documents_list_what_nothing_contradicts() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    told = (
        text.partition("What nothing in the folder contradicts:")[2].partition("\n\n")[0].partition("`parameters`")[0]
    )
    names = set(re.findall(r"`([a-z_0-9]+)`", told)) - {"gpu", "cuda", "driver"}
    left = {name.removeprefix("rows.").removeprefix("models.").partition(".")[0] for name in NOTHING_CONTRADICTS}
    assert names == left


Change = Callable[[Plain, SidecarArrays], object]
TEST = "0-0/model/tran/"


def drop_row(facts: Plain, arrays: SidecarArrays) -> None:
    facts["rows"].pop(0)
    for name in [name for name in arrays if name.startswith("0-0/")]:
        del arrays[name]


def no_curves(facts: Plain, arrays: SidecarArrays) -> None:
    for name in [name for name in arrays if "curve" in name or "epochs" in name]:
        del arrays[name]
    for row in facts["rows"]:
        row["models"][0]["audit"] = {}


def flat_curve(facts: Plain, arrays: SidecarArrays) -> None:
    arrays["0-0/model/ind/curve"] = arrays["0-0/model/ind/curve"] * 0 + np.float32(0.01)
    score = first(facts)["scores"]["ind"]["value"]
    first(facts)["audit"]["ind"] |= {"peak": score, "gap": 0.0, "final": float(np.float32(0.01))}


def selected(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda facts, arrays: arrays.update({f"{TEST}selected": change(arrays[f"{TEST}selected"])})


CONSISTENT: dict[str, Change] = {
    "a row dropped": drop_row,
    "curves and audits dropped": no_curves,
    "a flat test curve": flat_curve,
    "one audit dropped": lambda facts, arrays: first(facts)["audit"].pop("ind"),
    "another epoch selected": lambda facts, arrays: first(facts).update(
        selected_epoch=1 + first(facts)["selected_epoch"] % 2
    ),
    "a validation curve reversed": lambda facts, arrays: arrays.update(
        {"0-0/model/val/curve": arrays["0-0/model/val/curve"][::-1].copy() - np.float32(0.1)}
    ),
    "arrays of no row": lambda facts, arrays: arrays.update({"9-9/model/x": np.zeros(2)}),
    "a column dropped": lambda facts, arrays: first(facts)["scores"].pop("ind"),
    "floats": selected(lambda x: x.astype(np.float64) + 0.4),
    "a class that is not there": selected(lambda x: np.where(x == 0, 200, x).astype(np.uint8)),
    "one short": selected(lambda x: x[:-1]),
    "a second axis": selected(lambda x: x[:, None]),
    "negative": selected(lambda x: x.astype(np.int64) - 4),
    "strings": selected(lambda x: x.astype("U3")),
    "no columns": lambda facts, arrays: facts.update(columns=[]),
    "a flat model without its flag": lambda facts, arrays: facts["rows"][0]["flags"].remove("flat"),
    "a flat teacher without its flag": lambda facts, arrays: facts["rows"][0]["flags"].remove("flat teacher"),
    "a flag of a model that is not flat": lambda facts, arrays: first(facts).update(train_ce_ratio=0.1),
    "a role that the record lacks": lambda facts, arrays: facts["rows"][0]["teachers"].update(other="0" * 64),
    "an unknown data set": lambda facts, arrays: facts.update(dataset="nosuchset"),
    "an unknown split": lambda facts, arrays: facts.update(split="nosuchsplit"),
    "a split of graphs": lambda facts, arrays: facts.update(split="tu-10fold"),
    "a huge data set": lambda facts, arrays: facts.update(dataset="csbm:n=3000000000000"),
    "protocol 0, other settings": lambda facts, arrays: (
        facts.update(protocol_version=0),
        facts["config"].update(lr=9.0),
    ),
    "a provenance that is not there": lambda facts, arrays: facts["rows"][0].update(provenance=99),
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_a_change_with_true_hashes_is_one_finding_of_its_record(copy: Path, name: str) -> None:
    """And the other records are checked all the same."""
    path = student(copy)
    facts, arrays = json.loads(path.read_text()), read_npz(path.with_suffix(".npz"))
    CONSISTENT[name](facts, arrays)
    seal(path, arrays, facts)
    other = next(p for p in record_paths(copy) if "prod" in load_record(p).columns and not load_record(p).teachers)
    spoilt = json.loads(other.read_text())
    first(spoilt)["val"] = 0.01
    other.write_text(json.dumps(spoilt))
    report = verify(copy)
    assert named(report, path)
    assert any(line.startswith(f"{other}: row 0-0: ") for line in report.problems), "the check ended too early"


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "", ".", "a/b.npz"])
def test_nothing_outside_the_folder_is_read(copy: Path, path: str) -> None:
    record = student(copy)
    facts = json.loads(record.read_text())
    facts["predictions"]["path"] = path
    record.write_text(json.dumps(facts))
    assert any("predictions.path: expected" in line for line in verify(copy).problems)


def test_the_same_predictions_under_two_keys_are_said(copy: Path) -> None:
    path = next(p for p in record_paths(copy) if not load_record(p).teachers)
    facts = json.loads(path.read_text())
    facts["config"]["lr"] = 0.25
    key = identity_of(Record.model_validate(facts)).key
    for row in facts["rows"]:
        row["command"] = row["command"].replace(facts["key"][:12], key[:12])
    facts["key"], target = key, path.with_name(f"toy-{key[:12]}.json")
    facts["predictions"]["path"] = target.with_suffix(".npz").name
    target.write_bytes(record_bytes(Record.model_validate(facts)))
    shutil.copy(path.with_suffix(".npz"), target.with_suffix(".npz"))
    report = verify(copy)
    assert (report.exit_code, report.problems) == (3, [])
    assert all("the same predictions as" in line for line in report.not_checked)


def test_a_large_generated_set_is_not_built() -> None:
    assert generated_size("csbm:n=400") < LARGEST_GENERATED < generated_size("csbm:n=40000000")
    assert generated_size("cora") == 0


def test_dirty_and_mixed_rows_are_said_and_not_wrong(copy: Path) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    facts["provenances"].append(facts["provenances"][0] | {"git_dirty": True, "torch": "0.0"})
    facts["rows"][0]["provenance"] = len(facts["provenances"]) - 1
    path.write_text(json.dumps(facts))
    report = verify(path)
    found = report.as_json()
    assert (report.problems, found["counts"]["dirty_rows"]) == ([], len(found["dirty_rows"]))
    assert f"{path}: row 0-0" in report.dirty
    assert any("torch" in line for line in report.mixed)


def test_findings_name_record_row_and_field(copy: Path) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    facts["data"]["nodes"] += 1
    path.write_text(json.dumps(facts))
    (found, _) = verify(path).as_json()["problems"]
    wanted = {"record": str(path), "row": "0-0", "field": "data.nodes", "expected": "400", "got": "401"}
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("more", [-1, 1])
def test_other_looks_than_points_of_the_curves_are_found(copy: Path, more: int) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(changed(facts, ("rows", 0, "looks"), facts["rows"][0]["looks"] + more)))
    (found,) = verify(path).wrong
    assert found.difference.field == "looks"


@pytest.mark.parametrize(("method", "at_least"), [("toy", False), ("ensemble", True)])
def test_looks_at_declared_predictors_are_counted_in_the_side_car(copy: Path, method: str, at_least: bool) -> None:
    """But for rows of two methods from before."""
    record = load_record(student(copy)).model_copy(update={"method": method})
    row, points = record.rows[0], record.rows[0].looks or 0
    arrays = row_arrays(read_npz(student(copy).with_suffix(".npz")), row.index, row.seed)
    more = row.model_copy(update={"looks": points + 3})
    assert not list(look_differences(record, row, arrays))
    assert bool(list(look_differences(record, more, arrays))) is not at_least
    counted = arrays | {DECLARED_LOOKS: np.array([3])}
    assert list(look_differences(record, row, counted)) and not list(look_differences(record, more, counted))


def test_a_flag_of_a_loss_spike_is_that_of_the_stored_loss(copy: Path) -> None:
    record = load_record(student(copy))
    calm, spiked = np.array([2.0, 0.01, 0.02]), np.array([2.0, 0.01, 1.5], dtype=np.float32)
    for method, flags, losses, found in (
        ("toy", [], calm, 0),
        ("toy", [], spiked, 1),
        ("toy", ["loss spike"], spiked, 0),
        ("toy", ["loss spike"], calm, 0),  # a method of a package may say so by itself
        ("mlp", ["loss spike"], calm, 1),
        ("mlp", [], np.array([2.0, 0.1, 1.0000001]), 0),  # at the bound, within the digits of float32
        ("mlp", ["loss spike"], np.array([2.0, 0.1, 1.0000001]), 0),
    ):
        row = record.rows[0].model_copy(update={"flags": flags})
        of = record.model_copy(update={"method": method})
        assert len(list(spike_differences(of, row, {"terms/loss": losses}))) == found, (method, flags, losses)


ODD_ORIGINS: dict[str, Callable[[Plain], object]] = {
    "provenances": lambda facts: facts["provenances"].append(facts["provenances"][0] | {"torch": "0"}),
    "provenances ": lambda facts: (
        facts["provenances"].append(facts["provenances"][0]),
        facts["rows"][0].update(provenance=len(facts["provenances"]) - 1),
    ),
    "rows.provenance": lambda facts: facts["rows"][0].update(provenance=None),
    "provenances.0.gpu": lambda facts: facts["provenances"][0].update(gpu="a GPU"),
}


@pytest.mark.parametrize("field", ODD_ORIGINS)
def test_provenances_fit_the_rows_and_the_device(copy: Path, field: str) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    ODD_ORIGINS[field](facts)
    path.write_text(json.dumps(facts))
    assert [found.difference.field for found in verify(path).wrong] == [field.strip()]


@pytest.mark.parametrize("field", ["parameters", "macs"])
def test_sizes_are_those_of_other_seeds(copy: Path, field: str) -> None:
    facts = json.loads(student(copy).read_text())
    row = facts["rows"][0]
    rows = [changed(row, ("models", 0, field), size) | {"seed": seed} for seed, size in enumerate([100, 100, 101])]
    uncounted = [changed(one, ("models", 0, "macs"), None) for one in rows[:2]]
    moved = [*rows[:2], rows[2] | {"index": 1}]
    for told, found in ((rows, 1), (moved, 0), *([([*uncounted, rows[2]], 1)] if field == "macs" else [])):
        odd = list(uneven_sizes(Record.model_validate(facts | {"rows": told})))
        assert [one.seed for one, _ in odd] == [2] * found


@pytest.mark.parametrize(("method", "said"), [("toy", 1), ("mlp_macs", 0)])
def test_parameters_are_those_of_other_splits(copy: Path, method: str, said: int) -> None:
    facts = json.loads(student(copy).read_text()) | {"method": method}
    other = changed(facts, ("rows", 0, "models", 0, "parameters"), 7) | {"split": "builtin-random"}
    for twin, expected in ((other, said), (facts | {"split": "builtin-random"}, 0)):
        report = VerifyReport()
        twin["rows"] = twin["rows"][:1]
        pair = [(copy / str(at), Record.model_validate(found)) for at, found in enumerate((facts, twin))]
        check_sizes(pair, report)
        assert [found.difference.field for found in report.unchecked] == ["models.model.parameters"] * expected


def test_what_a_method_says_is_bounded(copy: Path) -> None:
    path = student(copy)
    facts = json.loads(path.read_text())
    kept = {str(name): 0.0 for name in range(1000)}
    Record.model_validate(changed(facts, ("rows", 0, "extra"), kept))
    for field, value in (("extra", kept | {"more": 0.0}), ("extra", {"x" * 1001: 0.0}), ("flags", ["x" * 1001])):
        path.write_text(json.dumps(changed(facts, ("rows", 0, field), value)))
        assert any(f"rows.0.{field}" in line for line in verify(path).problems)
