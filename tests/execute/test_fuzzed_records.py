"""Records, side-cars and suites with seeded changes: unchanged in meaning, or named in words, and never the end of a
check."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fuzz import bounded, mutated_bytes, mutated_json, mutated_npz, outcome_of

from gkdbench.execute.runner import RunSummary
from gkdbench.execute.suite import Suite, load_suite, suite_files
from gkdbench.execute.verification.findings import VerifyReport
from gkdbench.execute.verify import verify
from gkdbench.protocol.scoring import arrays_sha256
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import bytes_sha256, read_npz, row_arrays
from gkdbench.records.store import load_record, record_bytes, record_paths

OFTEN, FULL = range(40), range(40, 440)
OFTEN_CHECKED, FULL_CHECKED = range(10), range(40, 190)
"""Of records: each is a check of the whole folder."""


@pytest.fixture
def copy(toy_run: tuple[Path, RunSummary], tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def checked(copy: Path) -> VerifyReport:
    """`verify` within bounds; it always gives a report."""
    found = outcome_of(lambda: verify(copy), copy)
    assert isinstance(found.value, VerifyReport), found.refusal
    return found.value


def scores(record: Record) -> list[Any]:
    """What boards read of a record."""
    return [
        (row.index, row.seed, row.status, [(m.name, m.val, m.selected_epoch, dict(m.scores)) for m in row.models])
        for row in record.rows
    ]


def check_record(copy: Path, seed: int) -> bool:
    """Change one record; whether `verify` said anything."""
    rng = random.Random(f"record {seed}")
    path = rng.choice(sorted(record_paths(copy)))
    before, text = load_record(path), path.read_bytes()
    path.write_bytes(mutated_json(json.loads(text), rng))
    report = checked(copy)
    said = report.exit_code != 0
    if said:
        lines = [*report.problems, *report.not_checked, *report.incomplete]
        assert any(str(path) in line or path.stem in line for line in lines), "the record is named"
    else:
        assert scores(load_record(path)) == scores(before)
    for leftover in path.parent.rglob("*"):
        if leftover.is_file() and ".damaged" in leftover.parts:
            leftover.unlink()
    path.write_bytes(text)
    return said


def check_sidecar(copy: Path, seed: int) -> bool:
    """Change one side-car, its hash in the record made true again where it can still be read; whether it was named."""
    rng = random.Random(f"side-car {seed}")
    path = rng.choice(sorted(record_paths(copy)))
    record, text = load_record(path), path.read_bytes()
    assert record.predictions is not None
    sidecar = path.with_name(record.predictions.path)
    data = sidecar.read_bytes()
    changed = mutated_npz(data, rng)
    sidecar.write_bytes(changed)
    described = record.predictions.model_copy(update={"sha256": bytes_sha256(changed), "size_bytes": len(changed)})
    rows = record.rows
    try:
        with bounded(copy):
            arrays = read_npz(sidecar)
            rows = [
                row.model_copy(update={"predictions_sha256": arrays_sha256(row_arrays(arrays, row.index, row.seed))})
                for row in record.rows
            ]
    except Exception:  # it cannot be read, and the record says so by its old hashes
        pass
    path.write_bytes(record_bytes(record.model_copy(update={"rows": rows, "predictions": described})))
    report = checked(copy)
    same = changed == data or report.exit_code != 0
    if not same:  # the change left every number that can be computed from it
        assert scores(load_record(path)) == scores(record)
    path.write_bytes(text)
    sidecar.write_bytes(data)
    return report.exit_code != 0


def check_suite(folder: Path, seed: int) -> bool:
    """Change a published suite; whether it was refused."""
    rng = random.Random(f"suite {seed}")
    path = folder / "changed.toml"
    path.write_bytes(mutated_bytes(rng.choice(sorted(suite_files().values())).read_bytes(), rng))
    found = outcome_of(lambda: load_suite(path), folder)
    assert found.refusal is not None or isinstance(found.value, Suite)
    return found.refusal is not None


def some_of_both(found: Iterator[bool]) -> None:
    """Some changes are harmless, and some are not."""
    assert set(found) == {True, False}


def test_changed_records_are_named_or_harmless(copy: Path) -> None:
    some_of_both(check_record(copy, seed) for seed in OFTEN_CHECKED)


def test_changed_sidecars_are_named_or_harmless(copy: Path) -> None:
    assert any(check_sidecar(copy, seed) for seed in OFTEN)


def test_changed_suites_are_refused_or_suites(tmp_path: Path) -> None:
    (folder := tmp_path / "suites").mkdir()
    some_of_both(check_suite(folder, seed) for seed in OFTEN)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_changed_records_are_named_or_harmless(copy: Path) -> None:
    some_of_both(check_record(copy, seed) for seed in FULL_CHECKED)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_changed_sidecars_are_named_or_harmless(copy: Path) -> None:
    assert any(check_sidecar(copy, seed) for seed in FULL)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_changed_suites_are_refused_or_suites(tmp_path: Path) -> None:
    (folder := tmp_path / "suites").mkdir()
    some_of_both(check_suite(folder, seed) for seed in FULL)
