"""The store: cells written, collected, found again, never mixed, never half."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.one_run import arrays, cell, record, row

from gkdbench.errors import UserError
from gkdbench.records import store as store_module
from gkdbench.records.canonical import stable
from gkdbench.records.claims import Claims
from gkdbench.records.files import files_below, host, is_abandoned, owned_name, write_atomically
from gkdbench.records.sidecar import bytes_sha256, npz_bytes, read_npz, row_arrays
from gkdbench.records.store import KILLED, Store, is_settled, load_record, record_bytes, rows_sha256


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "out")
    opened.open()
    return opened


def test_cells_are_collected_in_order_whatever_the_order_they_came_in(store: Store, tmp_path: Path) -> None:
    for index, seed in ((2, 2), (0, 0), (1, 1)):
        store.write(record(row(index, seed)), arrays(seed))
    (path,) = store.collect()
    assert path.relative_to(store.out).as_posix().startswith("cora/cpf-lcc-20-30~seed0/tran/mlp-")
    found = load_record(path)
    assert [(r.index, r.seed) for r in found.rows] == [(0, 0), (1, 1), (2, 2)]
    assert found.predictions is not None
    sidecar = path.with_name(found.predictions.path)
    assert bytes_sha256(sidecar.read_bytes()) == found.predictions.sha256
    for seed in range(3):
        kept = row_arrays(read_npz(sidecar), seed, seed)
        np.testing.assert_array_equal(kept["model/tran/selected"], arrays(seed)["model/tran/selected"])
    assert list(store.cells.iterdir()) == [store.cells / ".guard"]

    other = Store(tmp_path / "other")
    for index, seed in ((1, 1), (0, 0)):
        other.write(record(row(index, seed)), arrays(seed))
    other.collect()
    other.write(record(row(2, 2)), arrays(2))
    (again,) = other.collect()
    assert again.read_bytes() == path.read_bytes()
    assert again.with_suffix(".npz").read_bytes() == sidecar.read_bytes()


def test_a_row_is_found_before_and_after_collecting(store: Store) -> None:
    assert store.row(cell()) is None
    assert store.missing([cell(), cell(1, 1)]) == [cell(), cell(1, 1)]
    store.write(record(row()), arrays(0))
    assert store.row(cell()) == row()
    store.collect()
    assert store.row(cell()) == row()
    assert store.missing([cell(), cell(1, 1)]) == [cell(1, 1)]


def test_a_new_run_of_a_cell_replaces_its_row_and_its_arrays(store: Store) -> None:
    store.write(record(row()), arrays(0))
    store.write(record(row(1, 1)), arrays(1))
    store.collect()
    failed = row(1, 1, status="nan", models=[], predictions_sha256=None)
    store.write(record(failed), {})
    (path,) = store.collect()
    assert [r.status for r in load_record(path).rows] == ["ok", "nan"]
    assert row_arrays(read_npz(path.with_suffix(".npz")), 1, 1) == {}


@pytest.mark.parametrize(
    ("changes", "settled", "with_retry"),
    [
        ({"status": "ok"}, True, True),
        ({"status": "error"}, True, False),
        ({"status": "error", "flags": [KILLED]}, False, False),
        ({"status": "skipped"}, False, False),
    ],
)
def test_what_needs_another_run(changes: dict[str, object], settled: bool, with_retry: bool) -> None:
    assert is_settled(row(**changes)) == settled
    assert is_settled(row(**changes), retry=True) == with_retry


def test_thread_counts_never_mix(store: Store) -> None:
    store.write(record(row()), arrays(0))
    with pytest.raises(UserError, match=r"expected runs of 2 thread\(s\), got 1.*--threads 1"):
        store.write(record(row(1, 1), threads=2), arrays(1))
    store.collect()
    with pytest.raises(UserError, match="never mixed"):
        store.write(record(row(1, 1), threads=2), arrays(1))


def test_above_the_cap_only_hashes_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(record(row()), arrays(0))
    (path,) = store.collect()
    monkeypatch.setattr(store_module, "CAP_BYTES", 500)
    store.write(record(row(1, 1)), arrays(1, size=10_000))
    store.collect()
    found = load_record(path)
    assert found.predictions is not None and not found.predictions.kept
    assert found.predictions.sha256 == rows_sha256(found.rows)
    assert not path.with_suffix(".npz").exists()
    store.write(record(row(2, 2)), arrays(2))
    store.collect()
    grown = load_record(path)
    assert grown.predictions is not None and not grown.predictions.kept
    assert [r.seed for r in grown.rows] == [0, 1, 2]


def test_a_crash_between_side_car_and_record_is_mended_by_the_next_collect(store: Store, tmp_path: Path) -> None:
    store.write(record(row()), arrays(0))
    (path,) = store.collect()
    old = path.read_bytes()
    store.write(record(row(1, 1)), arrays(1))
    waiting = shutil.copytree(store.cells, tmp_path / "cells")
    store.collect()
    whole = path.read_bytes()
    path.write_bytes(old)
    shutil.copytree(waiting, store.cells, dirs_exist_ok=True)
    Store(store.out).collect()
    assert path.read_bytes() == whole


def test_opening_removes_what_the_dead_left_and_nothing_else(store: Store) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = f"{host()}~{ended.stdout.strip()}~1~0"
    folder = store.cells / "k"
    folder.mkdir()
    mine, theirs = folder / f".tmp~{owned_name()}~0-0.json", folder / f".tmp~{dead}~0-0.json"
    orphan, kept = folder / "1-1.npz", folder / "2-2.npz"
    for path in (mine, theirs, orphan, kept, folder / "2-2.json"):
        path.write_text("{}")
    assert (is_abandoned(mine), is_abandoned(theirs)) == (False, True)
    Store(store.out).open()
    assert sorted(path.name for path in folder.iterdir()) == sorted([mine.name, "2-2.json", "2-2.npz"])


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; .*free some space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_record_is_written_one_way_and_read_back(tmp_path: Path) -> None:
    written = record(row(reason="a [\n 1,\n 2\n] b", flags=["x"], extra={"ratio": -1.5e-7}))
    text = record_bytes(written)
    assert b'"confusion": [1, 1, 1, 1]' in text
    path = tmp_path / "mlp-000000000000.json"
    path.write_bytes(text)
    assert load_record(path) == written
    assert record_bytes(load_record(path)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data | {"rows": [data["rows"][0] | {"status": "fine"}]}, r"rows.0.status"),
        (lambda data: data | {"colour": "red"}, "colour"),
        (lambda data: data | {"schema_version": 99}, "version 99"),
        (lambda data: [data], "not a valid record"),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(change(json.loads(record_bytes(record(row()))))))  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        load_record(path)
    assert str(path) in str(caught.value)


def test_the_bytes_of_a_side_car_depend_on_its_arrays_alone() -> None:
    one = {"b": np.arange(3), "a": np.zeros((2, 2), np.float32)}
    assert npz_bytes(one) == npz_bytes(dict(reversed(one.items())))
    assert npz_bytes(one) != npz_bytes(one | {"b": np.arange(4)})


def test_a_damaged_side_car_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(npz_bytes({"a": np.arange(100)})[:-30])
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        read_npz(path)


def test_equality_of_records_leaves_out_where_and_when(store: Store) -> None:
    here, there = record(row(host="a", pid=1, train_s=1.0)), record(row(host="b", pid=2, train_s=9.0))
    assert stable(here) == stable(there)
    assert stable(here) != stable(record(row(epochs=3)))


def test_a_claim_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    lock = tmp_path / "k" / "0-0.lock"
    first, second = Claims(tmp_path / "guard"), Claims(tmp_path / "guard")
    assert first.take(lock) and not second.take(lock)
    second.release(lock)
    assert lock.exists()
    first.release(lock)
    assert not lock.exists() and second.take(lock)
    second.release_all()
    assert not lock.exists()


CLAIM = """
import sys
from pathlib import Path
from gkdbench.records.claims import Claims
claims = Claims(Path(sys.argv[1]) / "guard")
print(claims.take(Path(sys.argv[1]) / "0-0.lock"), flush=True)
sys.stdin.read()
"""


def test_a_dead_process_loses_its_claim_at_once_a_living_one_keeps_it(tmp_path: Path) -> None:
    lock, claims = tmp_path / "0-0.lock", Claims(tmp_path / "guard")
    holder = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline().strip() == "True"
    assert not claims.take(lock)
    holder.kill()
    assert holder.wait() < 0
    assert claims.take(lock)
    claims.release_all()


def test_of_many_that_find_a_stale_claim_one_gets_it(tmp_path: Path) -> None:
    stale = {"pid": 2**22 + 1, "start": "1", "host": host(), "hostname": "here", "token": "t"}
    (tmp_path / "0-0.lock").write_text(json.dumps(stale))
    rivals = [
        subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
        for _ in range(4)
    ]  # fmt: skip
    answers = [rival.stdout.readline().strip() for rival in rivals if rival.stdout]
    for rival in rivals:
        rival.communicate("")
    assert sorted(answers) == ["False", "False", "False", "True"]


def test_a_claim_of_another_host_is_kept_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    lock, claims = tmp_path / "0-0.lock", Claims(tmp_path / "guard")
    foreign = {"pid": 1, "start": "1", "host": "elsewhere", "hostname": "there", "token": "t"}
    lock.write_text(json.dumps(foreign))
    assert not claims.take(lock)
    os.utime(lock, (0, 0))
    assert claims.take(lock)
    claims.release_all()


def test_an_empty_lock_is_broken_when_its_creator_cannot_be_writing_any_more(tmp_path: Path) -> None:
    lock, claims = tmp_path / "0-0.lock", Claims(tmp_path / "guard")
    lock.touch()
    assert not claims.take(lock)
    os.utime(lock, (0, 0))
    assert claims.take(lock)
    claims.release_all()


def test_a_folder_may_vanish_while_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run removes its scratch folder between the listing of its parent and its own."""
    for folder in ("gone", "kept", ".scratch"):
        write_atomically(tmp_path / folder / "a.json", b"{}")
    scandir = os.scandir

    def late(path: str) -> object:
        if Path(path).name == "gone":
            Path(path, "a.json").unlink()
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late)
    assert list(files_below(tmp_path)) == [tmp_path / "kept" / "a.json"]
    assert not (tmp_path / "gone").exists()
    assert set(files_below(tmp_path, ".json", hidden=True)) == {tmp_path / f / "a.json" for f in ("kept", ".scratch")}
    assert list(files_below(tmp_path / "none")) == []
