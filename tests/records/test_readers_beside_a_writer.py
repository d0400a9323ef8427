"""Readers of a folder in which a run is writing: no read fails, and none sees a record twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.one_run import arrays, record, row

from gkdbench.records.files import TEMPORARY, owned_name
from gkdbench.records.store import (
    CellAddress,
    GroupAddress,
    Store,
    checked_sidecar,
    load_record,
    read_group,
    record_paths,
)
from gkdbench.report.loading import load_records

WRITER = """
import sys
from support.one_run import arrays, record, row
from gkdbench.records.store import Store
store = Store(sys.argv[1])
store.open()
print("writing", flush=True)
n = 0
while True:
    n += 1
    for method in range(int(sys.argv[2])):
        of = record(row(n % 3, n % 3), method=f"m{method}")
        store.write(of, arrays(n))
        store.collect(of.key)
"""
METHODS, FEW = 50, 4


FIRST = CellAddress(GroupAddress.of(record(row(), method="m0")), 0, 0)


def written(out: Path, methods: int) -> Path:
    store = Store(out)
    store.open()
    for method in range(methods):
        store.write(record(row(), method=f"m{method}"), arrays(0))
    store.collect()
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return written(tmp_path / "out", FEW)


def disturbances(out: Path, reads: int, *, methods: int = METHODS, readers: int = 4) -> list[str]:
    """What goes wrong in so many reads beside a writing process: of a board, of a plan, of verify. Several readers at
    a time: one that waits for the writer leaves the processor to the others."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(out), str(min(methods, 5))]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    try:
        with ThreadPoolExecutor(readers) as pool:
            rounds = (range(start, start + READS) for start in range(0, reads, READS))
            found = list(pool.map(lambda numbers: list(read_by(out, numbers, methods)), rounds))
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    return [line for lines in found for line in lines]


READS = 10
"""Of one reader: a board, a plan, and pairs of record and side-car, listed once, as verify lists them."""


def read_by(out: Path, numbers: range, methods: int) -> Iterator[str]:
    """What goes wrong in the reads with these numbers."""
    plan, paths = Store(out), record_paths(out)
    for n in numbers:
        try:
            if n % READS == 0:
                keys = [one.key for one in load_records(out)]
                if len(keys) != methods or len(set(keys)) != methods:
                    yield f"read {n}: {len(keys)} records, {len(set(keys))} keys"
            elif n % READS == 1:
                if plan.missing([FIRST]):
                    yield f"read {n}: a stored row is missing"
            else:
                pair = n // READS * (READS - 2) + n % READS
                one, stored = read_group(paths[pair % len(paths)])
                if not stored or not one.rows:
                    yield f"read {n}: no rows or arrays"
        except Exception as error:
            yield f"read {n}: {type(error).__name__}: {error}"


def test_no_read_beside_a_writer_fails_or_sees_a_record_twice(tmp_path: Path) -> None:
    assert disturbances(written(tmp_path / "out", METHODS), 120) == []


@pytest.mark.full
def test_no_read_of_five_thousand_beside_a_writer_fails_or_sees_a_record_twice(tmp_path: Path) -> None:
    assert disturbances(written(tmp_path / "out", METHODS), 5000) == []


@pytest.mark.full
def test_readers_that_do_not_wait_for_a_writer_are_disturbed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: some thirty of these reads find a side-car of another moment."""
    monkeypatch.setattr("gkdbench.records.store.undisturbed", lambda path: nullcontext())
    assert disturbances(out, 1000, methods=FEW)


def test_a_temporary_file_of_an_earlier_version_is_no_record(out: Path) -> None:
    """Its name ended like a record's; a positive control for the rule on names."""
    path = record_paths(out)[0]
    path.with_name(f"{TEMPORARY}{owned_name()}~{path.name}").write_bytes(path.read_bytes())
    assert len(load_records(out)) == FEW


def test_a_file_that_goes_between_listing_and_reading_is_left_out(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = record_paths(out)
    monkeypatch.setattr("gkdbench.report.loading.record_paths", lambda root: paths)
    paths[3].unlink()
    assert len(load_records(out)) == FEW - 1


def test_a_pair_that_is_being_written_is_read_when_it_is_whole(out: Path) -> None:
    """The writer holds the guard between side-car and record; without waiting for it the two do not belong together."""
    path = record_paths(out)[0]
    script = """
import sys, time
from pathlib import Path
from gkdbench.records.claims import guarded
with guarded(Path(sys.argv[1])):
    side, whole = Path(sys.argv[2]), Path(sys.argv[2]).read_bytes()
    side.write_bytes(b"new")
    print("half", flush=True)
    sys.stdin.readline()
    time.sleep(0.3)
    side.write_bytes(whole)
"""
    command = [sys.executable, "-c", script, str(out / ".cells" / ".guard"), str(path.with_suffix(".npz"))]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert writer.stdin is not None and writer.stdout is not None and writer.stdout.readline() == "half\n"
    with pytest.raises(ValueError, match="sha256"):
        checked_sidecar(path, load_record(path))
    writer.stdin.write("\n")
    writer.stdin.flush()
    assert read_group(path)[1]
    writer.wait()


def test_a_stopped_writer_delays_a_reader_but_does_not_stop_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gkdbench.records import claims

    monkeypatch.setattr(claims, "WRITER_WAIT_S", 0.05)
    with claims.guarded(out / ".cells" / ".guard"):
        assert read_group(record_paths(out)[0])[1]
