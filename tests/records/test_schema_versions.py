"""Old records are lifted, future ones refused; the exported schema says what a record is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.one_run import record, row

from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.errors import UserError
from gkdbench.records.canonical import volatile_fields
from gkdbench.records.export import record_schema
from gkdbench.records.key import identity_of
from gkdbench.records.migrate import STEPS, migrate
from gkdbench.records.schema import SCHEMA_VERSION, Provenance, Record
from gkdbench.records.store import load_record, record_bytes, record_paths

ROOT = Path(__file__).parents[2]
FIRST = {"protocol_version": 1, "selection": "first"}
NEW_IN_2 = {"selection", "audit_only", "provenances"}
NEW_IN_ROWS_OF_2 = {"looks", "provenance"}
NEW_IN_MODELS_OF_2 = {"val_loss", "train_ce_ratio"}


def written(path: Path, today: Record, version: int, **more: object) -> Path:
    """`today` as a file of an older schema version."""
    old = {name: value for name, value in json.loads(record_bytes(today)).items() if name not in NEW_IN_2}
    for run in old["rows"]:
        for name in NEW_IN_ROWS_OF_2:
            run.pop(name, None)
        for model in run["models"]:
            for name in NEW_IN_MODELS_OF_2:
                model.pop(name, None)
    if version == 0:
        del old["revisions"], old["audit_every"]
    path.write_text(json.dumps(old | {"schema_version": version} | more))
    return path


@pytest.mark.parametrize("version", [0, 1])
def test_a_record_of_an_older_version_reads_as_todays(tmp_path: Path, version: int) -> None:
    today = record(row(), **FIRST)
    found = load_record(written(tmp_path / "mlp-000000000000.json", today, version))
    assert found == today
    assert identity_of(found).key == found.key
    model = found.rows[0].models[0]
    assert (model.val_loss, model.train_ce_ratio, found.rows[0].looks) == (None, None, None)


def test_the_one_provenance_of_version_1_is_that_of_every_row(tmp_path: Path) -> None:
    where = {"gkdbench": "0.1.0", "git_commit": "abc"}
    today = record(row(), **FIRST).model_copy(update={"rows": [row(), row(1, 1)]})
    found = load_record(written(tmp_path / "mlp-000000000000.json", today, 1, provenance=where))
    assert found.provenances == [Provenance(**where)]
    assert [run.provenance for run in found.rows] == [0, 0]
    assert all(found.provenance_of(run) == Provenance(**where) for run in found.rows)


def test_a_version_1_without_provenance_has_rows_without_one(tmp_path: Path) -> None:
    found = load_record(written(tmp_path / "mlp-000000000000.json", record(row(), **FIRST), 1))
    assert (found.provenances, found.rows[0].provenance) == ([], None)
    assert found.provenance_of(found.rows[0]) == Provenance()


@pytest.mark.parametrize("split", [*SPLIT_FAMILIES])
def test_audit_only_splits_are_known_to_older_versions(tmp_path: Path, split: str) -> None:
    found = load_record(written(tmp_path / "mlp-000000000000.json", record(row(), split=split, **FIRST), 1))
    assert found.audit_only == SPLIT_FAMILIES[split].audit_only


def test_every_published_file_loads_and_keeps_its_key() -> None:
    paths = record_paths(ROOT / "results", studies=True)
    if not paths:
        pytest.skip("no published records in this checkout")
    for path in paths:
        found = load_record(path)
        assert identity_of(found).key == found.key, path
        assert all(run.provenance is not None for run in found.rows), path


def test_every_older_version_has_a_step() -> None:
    assert sorted(STEPS) == list(range(SCHEMA_VERSION))


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, None, "1", True])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(UserError, match="version"):
        migrate({"schema_version": version})


def test_the_exported_schema_covers_every_field_and_marks_the_volatile_ones() -> None:
    schema = record_schema()
    assert set(schema["properties"]) == set(Record.model_fields)
    assert schema["properties"]["provenances"]["volatile"] is True
    row_fields = schema["$defs"]["Row"]["properties"]
    marked = {f"rows.{name}" for name, field in row_fields.items() if field.get("volatile")}
    assert marked | {"provenances"} == set(volatile_fields(Record))


def test_energy_is_written_where_it_was_read() -> None:
    without = record(row())
    assert b"train_j" not in record_bytes(without)
    assert json.loads(record_bytes(record(row(train_j=2.5))))["rows"][0]["train_j"] == 2.5
