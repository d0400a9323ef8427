"""Faults of methods and of data sets in one suite with healthy cells: each costs its own cells, with its cause."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import bad_data
from support.toy_plugin import DATASET

from gkdbench.data.datasets import DATASETS, load_task
from gkdbench.errors import UserError
from gkdbench.execute.api import run_suite
from gkdbench.execute.runner import RunSummary
from gkdbench.execute.suite import parse_suite
from gkdbench.records.schema import Record
from gkdbench.records.store import Store, load_record
from gkdbench.registry import Entry

FEW = 5
HEALTHY = [{"method": "toy"}, {"method": "toy", "mode": "notes of numpy"}, {"method": "toy", "taught": True}]
UNWRITABLE = {"method": "toy", "lr": 0.25}


@pytest.fixture(autouse=True)
def bad_sets() -> Iterator[None]:
    for name in bad_data.NAMES:
        DATASETS.add(Entry(name, f"support.bad_data:{name.replace('-', '_')}", "a package"))
    yield
    for name in bad_data.NAMES:
        assert DATASETS._entries is not None
        del DATASETS._entries[name]
        DATASETS._loaded.pop(name, None)


def reasons() -> dict[str, str]:
    """Fault of a method -> what its record must say."""
    return {name: said for name, (_, said) in importlib.import_module("faults").FAULTS.items()}


@pytest.fixture(autouse=True)
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store cannot write the scores of one cell: neither the disk nor the folder is to blame."""
    write = Store.write

    def refuses(self: Store, record: Record, arrays: Any) -> Any:
        if record.config["lr"] == UNWRITABLE["lr"] and record.rows[0].status == "ok":
            raise TypeError("float32 is not JSON serializable")
        return write(self, record, arrays)

    monkeypatch.setattr(Store, "write", refuses)


def run(methods: Sequence[str], sets: Sequence[str], out: Path) -> RunSummary:
    """The faults, with healthy cells before, between and after them."""
    half = len(methods) // 2
    toys: list[dict[str, Any]] = [{"method": "toy", "mode": name} for name in methods]
    entries = [HEALTHY[0], UNWRITABLE, *toys[:half], HEALTHY[1], *toys[half:], HEALTHY[2]]
    names = [*sets[: len(sets) // 2], DATASET, *sets[len(sets) // 2 :]]
    grids = [
        {"datasets": [name], "splits": ["builtin-random"], "methods": entries if name == DATASET else HEALTHY[:1]}
        for name in names
    ]
    suite = parse_suite({"suite": {"name": "faults", "seeds": "0:1", "time_limit_s": 60.0}, "grid": grids})
    return run_suite(suite, out=out, jobs=1, device="cpu")


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.full)])
def test_each_fault_is_one_record_or_one_refused_set(few: bool, tmp_path: Path) -> None:
    said, sets = reasons(), sorted(bad_data.NAMES)
    assert len(said) >= 30 and len(sets) >= 30
    methods = (
        ["extra NaN", "extra surrogate", "raises without text", "names a path", "answers text"] if few else [*said]
    )
    sets = sets[:: len(sets) // FEW][:FEW] if few else sets
    summary = run(methods, sets, tmp_path)
    assert summary.ok == len(HEALTHY) + 1  # and the teacher of the last one
    assert len(summary.refused) == len(sets)
    for name, line in zip(sorted(sets), sorted(summary.refused), strict=True):
        assert line.startswith(f"{name} on builtin-random: 1 cells left out") and bad_data.CAUSES[name] in line, line
    records = [record for _, record in Store(tmp_path).records()]
    rows = {str(record.config["mode"]): record.rows for record in records}
    assert rows["notes of numpy"][0].extra == {"a": 0.5, "b": 2.0, "c": 1.0, "d": 7.0}
    (unwritable,) = [record.rows[0] for record in records if record.config["lr"] == UNWRITABLE["lr"]]
    assert unwritable.reason == "its row cannot be made or stored: TypeError: float32 is not JSON serializable"
    assert len(summary.failures) == len(methods) + 1
    for name in methods:
        (row,) = rows[name]
        assert row.status != "ok" and row.reason and said[name] in row.reason, (name, row.reason)
    for path in summary.records:
        load_record(path)


@pytest.mark.parametrize("name", sorted(bad_data.NAMES))
def test_a_bad_set_is_refused_with_its_cause(name: str) -> None:
    with pytest.raises(UserError) as refused:
        load_task(name)
    assert bad_data.CAUSES[name] in str(refused.value) and "of a package" in str(refused.value).replace(
        "the code of a package", "of a package"
    )
