"""Positive controls of the store's defences: an attack fails with the defence, and succeeds without it."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.one_run import arrays, cell, record, row

from gkdbench.errors import UserError
from gkdbench.records.claims import HEARTBEAT_S, Claims
from gkdbench.records.files import TEMPORARY, owned_name
from gkdbench.records.schema import Provenance
from gkdbench.records.store import Store, load_record, record_paths
from gkdbench.report.loading import load_records
from gkdbench.safe_arrays import read_npz

Attack = Callable[[Path], bool]
Removed = dict[str, object]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with one record of two rows."""
    store = Store(tmp_path / "out")
    store.open()
    for seed in range(2):
        store.write(record(row(seed, seed)), arrays(seed))
    store.collect()
    return store.out


def only(out: Path) -> Path:
    (path,) = [path for path in out.rglob("mlp-*.json") if ".cells" not in path.parts]
    return path


def files_outside(out: Path) -> set[Path]:
    return {path for path in out.parent.rglob("*") if path.is_file() and out not in path.parents}


def dots_in_a_name(out: Path) -> bool:
    """A waiting cell whose method's name leads four folders up."""
    waiting = out / ".cells" / "f" / "0-0.json"
    waiting.parent.mkdir()
    facts = json.loads(only(out).read_text())
    facts |= {"method": "../../../../outside", "rows": facts["rows"][:1], "predictions": None}
    facts["rows"][0]["predictions_sha256"] = None
    waiting.write_text(json.dumps(facts))
    before = files_outside(out)
    Store(out, mends=True).collect()
    return files_outside(out) != before


def cells_are_a_link(out: Path) -> bool:
    target = out.parent / "precious"
    (target / "sub").mkdir(parents=True)
    mine = target / "sub" / "0-0.npz"
    mine.write_bytes(b"precious")
    (out / ".cells" / ".guard").unlink()
    (out / ".cells").rmdir()
    (out / ".cells").symlink_to(target)
    Store(out).open()
    return not mine.exists()


def a_record_is_a_link(out: Path) -> bool:
    path = only(out)
    path.rename(out.parent / "elsewhere.json")
    path.symlink_to(out.parent / "elsewhere.json")
    return len(load_records(out)) == 1


def a_key_twice(out: Path) -> bool:
    path = only(out)
    path.write_text(path.read_text().replace('"label": ', '"label": "another", "label": ', 1))
    return load_record(path).label == "MLP"


def deep_json(out: Path) -> bool:
    only(out).write_text("[" * 200_000 + "]" * 200_000)
    try:
        load_record(only(out))
    except RecursionError:
        return True
    return False


def a_large_record(out: Path) -> bool:
    path = only(out)
    path.write_text(path.read_text().replace('"note": "', '"note": "' + "A" * 17_000_000, 1))
    return len(load_record(path).data.note) == 17_000_000


def a_pipe(out: Path) -> bool:
    """A pipe with a record's name, into which somebody writes a record once a reader waits for it."""
    path, content = only(out).with_name("evil-0123456789ab.json"), only(out).read_bytes()
    os.mkfifo(path)

    def fill() -> None:
        with suppress(OSError):
            path.write_bytes(content)

    writer = threading.Thread(target=fill, daemon=True)
    writer.start()
    try:
        return len(load_records(out)) == 2
    finally:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # frees a writer that still waits
        writer.join(1.0)


def a_bomb(out: Path) -> bool:
    path = out / "bomb.npz"
    np.savez_compressed(path, zeros=np.zeros(10_000))
    return len(read_npz(path, array_bytes=1000)["zeros"]) == 10_000


class Ran:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def a_pickle(out: Path) -> bool:
    mark = out.parent / "ran"
    np.savez(out / "objects.npz", x=np.array([Ran(mark)], dtype=object))
    try:
        read_npz(out / "objects.npz")
    except ValueError:
        return mark.exists()
    return True


def an_unwaited_temporary_file(out: Path) -> bool:
    path = only(out)
    path.with_name(f"{TEMPORARY}{owned_name()}~{path.name}").write_bytes(path.read_bytes())
    return len(load_records(out)) == 2


def a_lock_of_2040(out: Path) -> bool:
    """Whether a run waits for ever."""
    lock, claims = out / "0-0.lock", Claims(out / "guard")
    lock.write_text('{"pid": 1, "start": "1", "host": "elsewhere", "hostname": "there", "token": "t"}')
    os.utime(lock, (0, 2208988800))
    taken = claims.take(lock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: 1e9)
        taken = taken or claims.take(lock)
    claims.release_all()
    return not taken


def a_damaged_side_car(out: Path) -> bool:
    """Whether it ends the run."""
    only(out).with_suffix(".npz").write_bytes(b"PK")
    store = Store(out, mends=True)
    store.write(record(row(5, 5)), arrays(5))
    store.collect()
    return store.row(cell(5, 5)) is None


def one_clean_row(out: Path) -> bool:
    """Whether it takes the mark from two rows of changed code."""
    store = Store(out.parent / "marked")
    for seed, dirty in enumerate((True, True, False)):
        origin = Provenance(git_dirty=dirty)
        one = record(row(seed, seed, provenance=0))
        store.write(one.model_copy(update={"provenances": [origin]}), arrays(seed))
        store.collect()
    ((_, found),) = store.records()
    return [found.provenance_of(run).git_dirty for run in found.rows] != [True, True, False]


def read_any(path: Path, limit: int = 0, *, links: bool = True) -> Any:
    return json.loads(path.read_bytes())


def open_any(path: Path, *, links: bool = True) -> io.BufferedReader:
    return path.open("rb")


def refuse(self: object, path: Path, error: Exception) -> None:
    raise error


def newest_alone(records: list[Any]) -> Any:
    rows = {(run.index, run.seed): run for found in records for run in found.rows}
    return {at: run.model_copy(update={"provenance": 0}) for at, run in rows.items()}, records[-1].provenances


STORE, ARRAYS = "gkdbench.records.store", "gkdbench.safe_arrays"
ATTACKS: dict[str, tuple[Attack, Removed]] = {
    "names are one part of a path": (
        dots_in_a_name,
        {f"{STORE}.safe_name": lambda text, what: text, f"{STORE}.inside": lambda root, part: root / part},
    ),
    "links are not followed": (cells_are_a_link, {f"{STORE}.inside": lambda root, part: root / part}),
    "records are regular files": (a_record_is_a_link, {"gkdbench.safe_files.open_regular": open_any}),
    "keys of JSON once": (a_key_twice, {f"{STORE}.read_json": read_any}),
    "size of JSON": (a_large_record, {f"{STORE}.read_json": read_any}),
    "pipes are refused": (a_pipe, {"gkdbench.safe_files.open_regular": open_any}),
    "depth of JSON": (deep_json, {f"{STORE}.read_json": read_any}),
    "sizes before reading": (a_bomb, {f"{ARRAYS}._check_size": lambda *given: None}),
    "no pickle": (
        a_pickle,
        {f"{ARRAYS}._array": lambda stream, size: np.lib.format.read_array(stream, allow_pickle=True)},
    ),
    "temporary names are no records": (
        an_unwaited_temporary_file,
        {f"{STORE}._RECORD_NAME": re.compile(r".*-[0-9a-f]{12}\.json"), "gkdbench.records.files.TEMPORARY": "\0"},
    ),
    "locks of the future": (a_lock_of_2040, {"gkdbench.records.claims.HEARTBEAT_S": 1e12}),
    "damaged files are set aside": (a_damaged_side_car, {f"{STORE}.Store._put_aside": refuse}),
    "provenance a row": (one_clean_row, {f"{STORE}._merged_rows": newest_alone}),
}


def succeeds(attack: Attack, out: Path) -> bool:
    try:
        return attack(out)
    except UserError:
        return False


@pytest.mark.parametrize("defence", ATTACKS)
def test_an_attack_fails_with_its_defence(out: Path, defence: str) -> None:
    assert HEARTBEAT_S < 1e9 and record_paths(out)
    assert not succeeds(ATTACKS[defence][0], out)


@pytest.mark.parametrize("defence", ATTACKS)
def test_and_succeeds_without_it(out: Path, monkeypatch: pytest.MonkeyPatch, defence: str) -> None:
    attack, removed = ATTACKS[defence]
    for name, instead in removed.items():
        monkeypatch.setattr(name, instead)
    if defence == "damaged files are set aside":
        with pytest.raises(UserError, match=r"\.npz"):
            attack(out)
    else:
        assert succeeds(attack, out)
