"""What lies in a folder of records cannot lead a reader or a run astray; each defence has a case that needs it."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.one_run import arrays, cell, record, row

from gkdbench.errors import UserError
from gkdbench.records.claims import HEARTBEAT_S, Claims, owner_of
from gkdbench.records.measurement import load_measurement
from gkdbench.records.sidecar import SidecarArrays, npz_bytes, read_npz
from gkdbench.records.store import GroupAddress, Store, load_record, read_group, record_bytes, record_paths
from gkdbench.report.loading import load_records


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
    (path,) = record_paths(out)
    return path


HOSTILE_NAMES = ("..", ".", "", "../../x", ".hidden", "a\nb", "a\x1b[2J", "a\0b", "\u202ea", "x" * 300)
WITH_SLASHES = ("a/../../b", "/etc/x")  # in the names of data sets and splits, a slash becomes "~"
CASES = [(field, name) for field in ("method", "dataset", "split", "key") for name in HOSTILE_NAMES]
CASES += [(field, name) for field in ("method", "key") for name in WITH_SLASHES]


@pytest.mark.parametrize(("field", "name"), CASES)
def test_a_name_that_is_no_part_of_a_path_is_refused_by_every_reader(out: Path, field: str, name: str) -> None:
    path = only(out)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {field: name}))
    with pytest.raises(UserError, match=f"{field}: expected"):
        load_records(out)
    before = {found: found.read_bytes() for found in out.parent.rglob("*") if found.is_file()}
    waiting = out / ".cells" / "f" / "0-0.json"
    waiting.parent.mkdir()
    path.rename(waiting)
    store = Store(out, mends=True)
    assert store.collect() == [] and len(store.damaged.told) == 1
    assert {f for f in out.parent.rglob("*") if f.is_file() and ".damaged" not in f.parts} <= before.keys()


def test_names_of_records_map_to_the_paths_that_they_have() -> None:
    """The published folder is the proof; slashes of data sets and splits are part of names."""
    results = Path(__file__).parents[2] / "results"
    for path in record_paths(results, studies=True):
        found = json.loads(path.read_text())
        address = GroupAddress(*(found[name] for name in ("key", "method", "dataset", "split", "setting")))
        assert path.as_posix().endswith(address.path.as_posix())


@pytest.mark.parametrize("name", [".cells", ".bank", ".scratch", ".logs", "models"])
def test_a_run_refuses_a_link_in_the_place_of_its_own_folders(out: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    (target / "sub").mkdir(parents=True)
    mine = [target / "poetry.lock", target / "sub" / "weights.npz", target / "sub" / "0-0.npz"]
    for path in mine:
        path.write_bytes(b"precious")
        os.utime(path, (1, 1))
    if (out / name).is_dir():
        (out / name / ".guard").unlink()
        (out / name).rmdir()
    (out / name).symlink_to(target)
    with pytest.raises(UserError, match="symbolic link"):
        Store(out).open()
    assert [path.read_bytes() for path in mine] == [b"precious"] * 3


def test_opening_removes_only_names_that_the_store_makes(out: Path) -> None:
    folder = out / ".cells" / "k"
    folder.mkdir()
    others = [folder / "poetry.lock", folder / "weights.npz", out / ".tmp~notes", folder / "1-x.npz"]
    made = [folder / "7-7.npz", folder / "7-8.lock"]
    for path in (*others, *made):
        path.write_bytes(b"")
        os.utime(path, (1, 1))
    Store(out).open()
    assert [path.exists() for path in others] == [True] * 4 and [path.exists() for path in made] == [False] * 2


def test_a_group_is_not_written_through_a_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = only(out).parents[2]
    moved = place.rename(tmp_path / "elsewhere" / "cora")
    place.symlink_to(moved)
    with pytest.raises(UserError, match="symbolic link"):
        Store(out).write(record(row(3, 3)), arrays(3))


def odd_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "a symbolic link": odd_link, "a pipe": os.mkfifo, "a folder": Path.mkdir,
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_what_is_no_file_is_refused_and_not_waited_for(out: Path, kind: str, suffix: str) -> None:
    path = only(out).with_suffix(suffix)
    path.unlink()
    ODD_FILES[kind](path)
    with pytest.raises(UserError, match=f"expected a file, got {kind}"):
        read_group(path.with_suffix(".json"))


TEXTS = {
    "levels of JSON": "[" * 200_000 + "]" * 200_000,
    "levels of JSON ": '{"config": ' + "[" * 60 + "]" * 60 + "}",
    "twice in one object": '{"label": "a", "label": "b"}',
    "finite numbers": '{"score": NaN}',
    "surrogates": '{"label": "\\ud800"}',
    "at most 16,777,216 bytes": '{"note": "' + "A" * 17_000_000 + '"}',
}


@pytest.mark.parametrize("fault", TEXTS)
@pytest.mark.parametrize("load", [load_record, load_measurement])
def test_json_is_bounded_for_records_and_measurements(
    tmp_path: Path, fault: str, load: Callable[[Path], object]
) -> None:
    path = tmp_path / "mlp-0123456789ab.json"
    path.write_text(TEXTS[fault])
    with pytest.raises(UserError, match=re.escape(fault.strip())):
        load(path)


def member(name: str, header: dict[str, object], content: bytes, times: int = 1) -> bytes:
    target, head = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, header)
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as file,
    ):
        file.write(head.getvalue())
        for _ in range(times):
            file.write(content)
    return target.getvalue()


def head(*shape: int, dtype: str = "|u1") -> dict[str, object]:
    return {"descr": dtype, "fortran_order": False, "shape": shape}


def twice() -> bytes:
    target = io.BytesIO(npz_bytes({"a": np.zeros(3)}))
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("a.npy", b"")
    return target.getvalue()


ARRAYS: dict[str, Callable[[], bytes]] = {
    "bytes of arrays": lambda: member("a.npy", head(2**29), b"\0" * 2**24, 20),
    "expected 1000000000000000 bytes": lambda: member("a.npy", head(10**15), b"\0"),
    "got 64": lambda: member("a.npy", head(-8, -8), b"\0" * 64),
    "not unpickled": lambda: member("a.npy", head(1, dtype="|O"), b"\0" * 8),
    "each name once": twice,
    "damaged": lambda: npz_bytes({"a": np.arange(100)})[:-30],
}


@pytest.mark.parametrize("fault", ARRAYS)
def test_declared_sizes_of_arrays_are_looked_at_first(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(ARRAYS[fault]())
    with pytest.raises(UserError, match=fault):
        read_npz(path)


def test_whole_arrays_of_any_kind_come_back(tmp_path: Path) -> None:
    given: SidecarArrays = {
        "i/x": np.arange(5, dtype=np.uint8),
        "none": np.zeros((0, 3)),
        "text": np.array(["a", "bc"]),
    }
    path = tmp_path / "x.npz"
    path.write_bytes(npz_bytes(given))
    found = read_npz(path)
    assert found.keys() == given.keys()
    assert all(np.array_equal(found[name], given[name]) and found[name].dtype == given[name].dtype for name in given)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "record cut off": lambda path: path.write_bytes(path.read_bytes()[:700]),
    "record empty": lambda path: path.write_bytes(b""),
    "side-car cut off": lambda path: path.with_suffix(".npz").write_bytes(b"PK"),
    "side-car gone": lambda path: path.with_suffix(".npz").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_sets_damaged_records_aside_and_goes_on(out: Path, damage: str) -> None:
    path = only(out)
    whole = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    DAMAGES[damage](path)
    assert Store(out).row(cell(5, 5)) is None if "side-car" in damage else True  # readers change nothing
    store = Store(out, mends=True)
    store.open()
    assert store.missing([cell(), cell(1, 1)]) == [cell(), cell(1, 1)]
    (told,) = store.damaged.told
    assert "give the same command again" in told and "restore" in told
    for seed in range(2):
        store.write(record(row(seed, seed)), arrays(seed))
    store.collect()
    assert (path.read_bytes(), path.with_suffix(".npz").read_bytes()) == whole
    assert len(list((out / ".damaged").iterdir())) == (1 if damage == "side-car gone" else 2)


def test_a_damaged_cell_is_set_aside_and_the_others_are_collected(out: Path) -> None:
    store = Store(out, mends=True)
    for seed in (2, 3, 4):
        store.write(record(row(seed, seed)), arrays(seed))
    folder = out / ".cells" / cell().group.key
    (folder / "2-2.npz").write_bytes(b"PK")
    (folder / "3-3.json").write_bytes(b"{")
    store.collect()
    assert [found.index for found in load_record(only(out)).rows] == [0, 1, 4]
    assert len(store.damaged.told) == 2


FOREIGN = {"pid": 1, "start": "1", "host": "elsewhere", "hostname": "there", "token": "t"}


def test_a_lock_dated_in_the_future_is_judged_by_its_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, claims = tmp_path / "0-0.lock", Claims(tmp_path / "guard")
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lock.write_text(json.dumps(FOREIGN))
    beats = iter((2208988800, 2208988830))
    os.utime(lock, (0, next(beats)))
    assert not claims.take(lock)
    now[0] += HEARTBEAT_S
    os.utime(lock, (0, next(beats)))
    assert not claims.take(lock)  # it beats: its owner lives
    now[0] += 1.4 * HEARTBEAT_S
    assert not claims.take(lock)
    now[0] += 0.2 * HEARTBEAT_S
    assert claims.take(lock)
    claims.release_all()


LOCKS = (
    "[" * 100_000,
    '{"pid": -1}',
    "null",
    json.dumps(FOREIGN | {"pid": "../x"}),
    json.dumps(FOREIGN | {"host": "\x1b"}),
)


@pytest.mark.parametrize("text", LOCKS)
def test_a_lock_of_other_content_belongs_to_nobody(tmp_path: Path, text: str) -> None:
    lock, claims = tmp_path / "0-0.lock", Claims(tmp_path / "guard")
    lock.write_text(text)
    os.utime(lock, (0, 0))
    assert owner_of(lock) is None and claims.take(lock)
    claims.release_all()


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_stands_in_the_place_of_a_lock_is_set_aside(out: Path, kind: str) -> None:
    folder = out / ".cells" / cell(7, 7).group.key
    folder.mkdir()
    ODD_FILES[kind](folder / "7-7.lock")
    os.utime(folder / "7-7.lock", (0, 0), follow_symlinks=False)
    store = Store(out, mends=True)
    assert store.claim(cell(7, 7))
    store.close()
    assert len(store.damaged.told) == (kind != "a symbolic link")


def test_a_record_larger_than_readers_accept_is_not_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkdbench.records.store.JSON_BYTES", len(record_bytes(load_record(only(out)))) + 100)
    before = only(out).read_bytes()
    store = Store(out)
    store.write(record(row(5, 5)), arrays(5))
    with pytest.raises(UserError, match="its cells are kept"):
        store.collect()
    assert only(out).read_bytes() == before and store.row(cell(5, 5)) is not None
