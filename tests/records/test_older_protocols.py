"""Cells and records of an older protocol are never written again; new rows go to files of their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from support.one_run import arrays, record, row

from gkdbench.records import store as store_module
from gkdbench.records.store import Store, load_record
from gkdbench.verbs.running import collect

OLD: dict[str, Any] = {"protocol_version": 1, "selection": "first"}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a record of protocol 1, a leftover cell of its group, and a finished cell of today."""
    store = Store(tmp_path)
    store.open()
    with monkeypatch.context() as then:
        then.setattr(store_module, "PROTOCOL_VERSION", 1)
        store.write(record(row(), **OLD), arrays(0))
        store.collect()
    store.write(record(row(1, 1), **OLD), arrays(1))
    store.write(record(row(1, 1)), arrays(2))
    return tmp_path


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".guard"}


def test_collect_leaves_an_older_protocol_to_the_byte(out: Path) -> None:
    before = files(out)
    old = {name for name in before if record(row(), **OLD).key[:12] in name}
    assert len(old) == 4  # record and cell, each with its arrays
    store = Store(out)
    (path,) = store.collect()
    after = files(out)
    assert {name: after[name] for name in old} == {name: before[name] for name in old}
    assert load_record(path).protocol_version == 2 and str(path.relative_to(out)) not in before
    assert store.left() == [(out / ".cells" / record(row(), **OLD).key / "1-1.json", 1)]
    assert store.collect() == []


def test_the_verb_says_what_it_left_and_why(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(argparse.Namespace(out=str(out), json=True, allow_dirty=False)) == 0
    told = capsys.readouterr()
    assert str(record(row()).key[:12]) in told.out
    assert told.err.startswith("left: ") and "1-1.json is of protocol 1, this gkdbench collects protocol 2" in told.err
    assert len(told.err.splitlines()) == 1
