"""The control that a record is: new records hold it, older ones get it from a table and keep their bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.one_run import arrays, record, row

from gkdbench.errors import UserError
from gkdbench.records.canonical import stable
from gkdbench.records.key import identity_of
from gkdbench.records.store import Store, load_record, record_bytes

NAME = "mlp-000000000000.json"


def written(folder: Path, **changes: Any) -> Path:
    path = folder / NAME
    path.write_bytes(record_bytes(record(row(), **changes)))
    return path


@pytest.mark.parametrize(
    ("method", "config", "kind"),
    [
        ("mlp_params", {}, "matched_size"),
        ("mlp_macs", {}, "matched_size"),
        ("ensemble", {"members": 5}, "several_models"),
        ("label_smoothing", {}, "regularised"),
        ("confidence_penalty", {}, "regularised"),
        ("kd", {"alpha": 0.0}, "no_transfer"),
        ("kd", {"alpha": 0.9}, None),
        ("dml", {"lam": 0.0}, "no_transfer"),
        ("dml", {}, None),
        ("alignahead", {"direction": "none"}, "no_transfer"),
        ("alignahead", {"direction": "ahead"}, None),
        ("lsp", {"lam": 0.0}, "no_transfer"),
        ("lsp", {"lam": 1.0}, None),
        ("gsp", {"alpha": 0.0, "beta": 0.0}, "no_transfer"),
        ("gsp", {"alpha": 0.0, "beta": 1.0}, None),
        ("rbm", {"model": {"routing": "frozen"}}, "fixed_routing"),
        ("rbm", {"model": {"routing": "memory"}}, None),
        ("glnn", {"lam": 0.0}, None),
        ("mlp_encodings", {}, None),
    ],
)
def test_an_older_record_gets_it_from_the_table_and_keeps_its_bytes(
    tmp_path: Path, method: str, config: dict[str, Any], kind: str | None
) -> None:
    path = written(tmp_path, method=method, config=config)
    assert "control" not in json.loads(path.read_text())
    found = load_record(path)
    assert found.control == kind
    assert record_bytes(found) == path.read_bytes()


@pytest.mark.parametrize("kind", ["regularised", None])
def test_a_new_record_holds_it_also_where_it_is_none(tmp_path: Path, kind: str | None) -> None:
    new = record(row(), method="ensemble").model_copy(update={"control": kind})
    (tmp_path / NAME).write_bytes(record_bytes(new))
    found = load_record(tmp_path / NAME)
    assert json.loads(record_bytes(found))["control"] == found.control == kind


def test_it_survives_collecting_and_is_no_part_of_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    old, new = (record(row(i, i), method="other") for i in range(2))
    new = new.model_copy(update={"control": "matched_size"})
    assert identity_of(old).key == identity_of(new).key
    for one in (old, new):
        store.write(one, arrays(one.rows[0].seed))
    (path,) = store.collect()
    assert [json.loads(path.read_text())["control"], load_record(path).control] == ["matched_size"] * 2


def test_the_same_run_stored_before_and_after_is_the_same_record() -> None:
    old = record(row(), method="ensemble")
    assert stable(old) == stable(old.model_copy(update={"control": "several_models"}))


def test_an_unknown_kind_in_a_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"control": "placebo"}))
    with pytest.raises(UserError, match=r"control: .*'matched_size'.*got 'placebo'"):
        load_record(path)
