"""Old records are lifted, future ones refused; the exported schema says what a record is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.one_run import record, row

from gkdbench.errors import UserError
from gkdbench.records.canonical import volatile_fields
from gkdbench.records.export import record_schema
from gkdbench.records.migrate import STEPS, migrate
from gkdbench.records.schema import SCHEMA_VERSION, Record
from gkdbench.records.store import load_record, record_bytes


def test_a_record_of_version_0_reads_as_todays(tmp_path: Path) -> None:
    today = record(row())
    old = json.loads(record_bytes(today))
    old["schema_version"] = 0
    del old["revisions"], old["audit_every"]
    path = tmp_path / "mlp-000000000000.json"
    path.write_text(json.dumps(old))
    assert load_record(path) == today


def test_every_older_version_has_a_step() -> None:
    assert sorted(STEPS) == list(range(SCHEMA_VERSION))


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, None, "1", True])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(UserError, match="version"):
        migrate({"schema_version": version})


def test_the_exported_schema_covers_every_field_and_marks_the_volatile_ones() -> None:
    schema = record_schema()
    assert set(schema["properties"]) == set(Record.model_fields)
    assert schema["properties"]["provenance"]["volatile"] is True
    row_fields = schema["$defs"]["Row"]["properties"]
    marked = {f"rows.{name}" for name, field in row_fields.items() if field.get("volatile")}
    assert marked | {"provenance"} == set(volatile_fields(Record))


def test_energy_is_written_where_it_was_read() -> None:
    without = record(row())
    assert b"train_j" not in record_bytes(without)
    assert json.loads(record_bytes(record(row(train_j=2.5))))["rows"][0]["train_j"] == 2.5
