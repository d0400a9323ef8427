"""The store: cells as single files, groups as collected records. No database; any number of processes may share it."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gkdbench.errors import UserError, invalid
from gkdbench.records.canonical import sha256_json
from gkdbench.records.claims import Claims, Owner, guarded, owner_of, undisturbed
from gkdbench.records.damaged import DamagedFiles
from gkdbench.records.files import (
    StorageError,
    files_below,
    is_abandoned,
    remove_if_empty,
    temporaries_below,
    write_atomically,
)
from gkdbench.records.migrate import migrate
from gkdbench.records.schema import PROTOCOL_VERSION, Predictions, Provenance, Record, Row
from gkdbench.records.sidecar import (
    CAP_BYTES,
    SidecarArrays,
    arrays_of,
    bytes_sha256,
    npz_bytes,
    read_npz,
    row_prefix,
    sidecar_bytes,
)
from gkdbench.safe_files import JSON_BYTES, UnsafeFile, inside, read_json, safe_name

KILLED = "killed"
"""Flag of a row whose worker died by a signal each time: nobody's fault for sure, so the next run tries again."""


@dataclass(frozen=True, slots=True)
class GroupAddress:
    """Where a group's record lies."""

    key: str
    method: str
    dataset: str
    split: str
    setting: str

    @classmethod
    def of(cls, record: Record) -> GroupAddress:
        return cls(record.key, record.method, record.dataset, record.split, record.setting)

    @property
    def path(self) -> Path:
        """Relative to the store's folder.

        Raises:
            UnsafeFile: a name that cannot be part of a path, or a key that is none.
        """
        if not _KEY.fullmatch(self.key):
            raise UnsafeFile(f"key: expected 64 hex digits, got {self.key!r:.80}; the file is no record of gkdbench")
        named = {"dataset": self.dataset, "split": self.split, "setting": self.setting}
        parts = [safe_name(text.replace("/", "~"), what) for what, text in named.items()]
        return Path(*parts, f"{safe_name(self.method, 'method')}-{self.key[:12]}.json")


_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CellAddress:
    """One run of a group."""

    group: GroupAddress
    index: int
    seed: int

    @property
    def stem(self) -> str:
        return f"{self.index}-{self.seed}"


def is_settled(row: Row, *, retry: bool = False) -> bool:
    """Whether a stored row needs no further run: it is ok, or failed by itself and `retry` is off."""
    return row.status == "ok" or not (retry or row.status == "skipped" or KILLED in row.flags)


class Store:
    """One output folder.

    Reading needs nothing; writing begins with `open`, which makes the folder and removes what dead processes left.

    Args:
        mends: set damaged files aside (see `gkdbench.records.damaged`) and go on without them, as a run does; otherwise
            they raise.
    """

    def __init__(self, out: Path | str, *, mends: bool = False) -> None:
        self.out = Path(out)
        try:
            self.out.stat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise StorageError(self.out, error) from None
        self.cells = self.out / ".cells"
        self.damaged = DamagedFiles(self.out)
        self._mends = mends
        self._guard = self.cells / ".guard"
        self._claims = Claims(self._guard, self.damaged.put_aside_lock)
        self._read: dict[Path, tuple[tuple[int, int, int], Record]] = {}

    def place(self, relative: Path | str) -> Path:
        """A path below the folder, none of whose parts is a symbolic link.

        Raises:
            UnsafeFile: names the link.
        """
        return inside(self.out, Path(relative))

    def open(self) -> None:
        """Make the folder, prove that it is writable, remove temporary files of dead processes.

        Raises:
            StorageError: it cannot be made or written.
            UnsafeFile: one of its own folders is a symbolic link.
        """
        for name in OWN_FOLDERS:
            self.place(name)
        with guarded(self._guard):
            for path in temporaries_below(self.out):
                if is_abandoned(path):
                    path.unlink(missing_ok=True)
        for lock in self._cell_files(".lock"):
            if self._claims.take(lock):  # its owner is dead
                self._claims.release(lock)
        for arrays in self._cell_files(".npz"):
            self._drop_orphan(arrays)
        for folder in self.cells.iterdir():
            remove_if_empty(folder)

    def _cell_files(self, suffix: str, folder: Path | None = None) -> list[Path]:
        """Files of cells, sorted: those with a name that `CellAddress` gives, and no others."""
        found = files_below(folder or self.cells, suffix)
        return sorted(path for path in found if path.parent.parent == self.cells and _STEM.fullmatch(path.stem))

    def _drop_orphan(self, arrays: Path) -> None:
        """Arrays whose cell was never finished. Claimed first: a living process may be about to finish it."""
        lock, cell = arrays.with_suffix(".lock"), arrays.with_suffix(".json")
        if not cell.exists() and self._claims.take(lock):
            if not cell.exists():
                arrays.unlink(missing_ok=True)
            self._claims.release(lock)

    def row(self, cell: CellAddress) -> Row | None:
        """The stored row of a cell, or None."""
        # The cell's file first: collecting removes it only after the group's record holds it.
        record = self._load(self._cell_path(cell, ".json")) or self._sound_group(cell.group)
        rows = record.rows if record else []
        return next((row for row in rows if (row.index, row.seed) == (cell.index, cell.seed)), None)

    def group(self, address: GroupAddress) -> Record | None:
        """The collected record of a group, without cells that are not collected yet."""
        return self._load(self.out / address.path)

    def _sound_group(self, address: GroupAddress) -> Record | None:
        """As `group`. With `mends`, a record whose side-car is damaged is set aside, and its rows are missing."""
        path = self.out / address.path
        known = self._read.get(path)
        record = self.group(address)
        if not self._mends or record is None or (known is not None and known[1] is record):
            return record
        try:
            checked_sidecar(path, record)
            return record
        except UserError:
            pass
        with guarded(self._guard):  # no other process is writing the two now
            record = self.group(address)
            try:
                if record is not None:
                    checked_sidecar(path, record)
            except UserError as error:
                self._put_aside(path, error)
                record = None
        return record

    def _put_aside(self, path: Path, error: UserError) -> None:
        """A record with its side-car, or a finished cell with its arrays."""
        self._read.pop(path, None)
        self.damaged.put_aside([path, path.with_suffix(".npz")], error)

    def missing(self, cells: Iterable[CellAddress], *, retry: bool = False) -> list[CellAddress]:
        """Those of `cells` that still have to run."""
        found = []
        for cell in cells:
            row = self.row(cell)
            if row is None or not is_settled(row, retry=retry):
                found.append(cell)
        return found

    def check_threads(self, address: GroupAddress, threads: int) -> None:
        """Refuse to add rows of another thread count to a group: sums differ between one and two threads.

        Raises:
            UserError: the group has rows of another count.
        """
        folder = self.cells / address.key
        known = [self.group(address), *(self._load(path) for path in self._cell_files(".json", folder))]
        for record in known:
            if record is not None and record.threads != threads:
                raise UserError(
                    f"{address.path}: expected runs of {threads} thread(s), got {record.threads}; sums differ "
                    f"between thread counts, so they are never mixed: give --threads {record.threads}, or another --out"
                )

    def claim(self, cell: CellAddress) -> bool:
        """Claim a cell for this process; False when a living process has it."""
        return self._claims.take(self._cell_path(cell, ".lock"))

    def owner(self, cell: CellAddress) -> Owner | None:
        """Who has claimed a cell."""
        return owner_of(self._cell_path(cell, ".lock"))

    def release(self, cell: CellAddress) -> None:
        """Give a claim back."""
        self._claims.release(self._cell_path(cell, ".lock"))

    def close(self) -> None:
        """Give every claim back."""
        self._claims.release_all()

    def write(self, record: Record, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Store one run: a record with a single row, and its arrays (names as in the scorer).

        Raises:
            UserError: the group holds runs of another thread count.
            StorageError: the folder refused.
        """
        (row,) = record.rows
        cell = CellAddress(GroupAddress.of(record), row.index, row.seed)
        self.place(cell.group.path)  # refused now, not when it is collected
        self.place(self._cell_path(cell, ".json").relative_to(self.out))
        self.check_threads(cell.group, record.threads)
        if arrays:
            write_atomically(self._cell_path(cell, ".npz"), npz_bytes(arrays))
        write_atomically(self._cell_path(cell, ".json"), record_bytes(record))
        if not arrays:  # an earlier run of this cell may have left some
            self._cell_path(cell, ".npz").unlink(missing_ok=True)

    def collect(self, key: str | None = None) -> list[Path]:
        """Merge finished cells into their groups' records; of one group, or of all. Returns the records' paths.

        Cells of an older protocol, or of a newer one, are left as they are (see `left`), and so is their record.
        """
        self.place(self.cells.name)
        folders = [self.cells / key] if key else sorted(p for p in self.cells.glob("*") if p.is_dir())
        changed = []
        for folder in folders:
            if folder.is_symlink():
                continue
            with guarded(self._guard):
                paths = [path for path in self._cell_files(".json", folder) if self._is_of_this_protocol(path)]
                fresh = {path: load_record(path) for path in paths}
                if fresh and (merged := self._merge(fresh)) is not None:
                    changed.append(merged)
                if folder.is_dir():
                    remove_if_empty(folder)
        return changed

    def dirty(self) -> list[Path]:
        """Finished cells whose code differed from its commit."""
        cells = [(path, self._load(path)) for path in self._cell_files(".json")]
        return [
            path
            for path, record in cells
            if record is not None and any(record.provenance_of(row).git_dirty for row in record.rows)
        ]

    def left(self) -> list[tuple[Path, int]]:
        """Finished cells that `collect` leaves alone, with the protocol version that they were made under."""
        cells = [(path, self._load(path)) for path in self._cell_files(".json")]
        found = [(path, record.protocol_version) for path, record in cells if record is not None]
        return [(path, version) for path, version in found if version != PROTOCOL_VERSION]

    def _is_of_this_protocol(self, path: Path) -> bool:
        """Cells of an older protocol stay as they are: their group's record is not written again."""
        record = self._load(path)
        return record is not None and record.protocol_version == PROTOCOL_VERSION

    def _merge(self, fresh: dict[Path, Record]) -> Path | None:
        """Called under the guard. None: with `mends`, no sound cell was left."""
        fresh, arrays = self._sound_cells(fresh)
        if not fresh:
            return None
        newest = max(fresh.values(), key=lambda record: record.rows[0].finished or "")
        address = GroupAddress.of(newest)
        target = self.place(address.path)
        before, old = self._sound_before(address)
        rows, provenances = _merged_rows([record for record in (before, *fresh.values()) if record])
        ordered = [rows[at] for at in sorted(rows)]
        data = None if old is None else self._merged_arrays(old, arrays)
        sidecar = target.with_suffix(".npz")
        kept = data is not None and len(data) <= CAP_BYTES
        if kept and data:
            write_atomically(sidecar, data)
        predictions = _described(sidecar.name, data, kept, ordered)
        parts = {"rows": ordered, "predictions": predictions, "provenances": provenances}
        text = record_bytes(newest.model_copy(update=parts))
        if len(text) > JSON_BYTES:
            raise UserError(
                f"{target}: expected a record of at most {JSON_BYTES:,} bytes, which readers accept, got "
                f"{len(text):,}; its cells are kept: run fewer seeds or splits into one folder, the others with "
                "another --out"
            )
        write_atomically(target, text)
        if not (kept and data):
            sidecar.unlink(missing_ok=True)
        for path in fresh:
            path.unlink()
            path.with_suffix(".npz").unlink(missing_ok=True)
        return target

    def _sound_cells(self, fresh: dict[Path, Record]) -> tuple[dict[Path, Record], dict[str, SidecarArrays]]:
        """Those of `fresh` whose arrays can be read, and the arrays by the prefix of their row."""
        arrays: dict[str, SidecarArrays] = {}
        sound: dict[Path, Record] = {}
        for path, record in fresh.items():
            (row,) = record.rows
            try:
                found = read_npz(path.with_suffix(".npz")) if row.predictions_sha256 else {}
            except UserError as error:
                if not self._mends:
                    raise
                self._put_aside(path, error)
                continue
            arrays[row_prefix(row.index, row.seed)], sound[path] = found, record
        return sound, arrays

    def _sound_before(self, address: GroupAddress) -> tuple[Record | None, SidecarArrays | None]:
        """The group's record and its arrays; None for arrays when the group had outgrown its side-car already."""
        before = self.group(address)
        if before is None or before.predictions is None:
            return before, {}
        if not before.predictions.kept:
            return before, None
        sidecar = (self.out / address.path).with_suffix(".npz")
        try:
            return before, read_npz(sidecar)
        except UserError as error:
            if not self._mends:
                raise
            self._put_aside(self.out / address.path, error)
            return None, {}

    def _merged_arrays(self, old: SidecarArrays, fresh: dict[str, SidecarArrays]) -> bytes:
        """The side-car's bytes: arrays of the record before, but for rows that are fresh."""
        arrays = {name: value for name, value in old.items() if not name.startswith(tuple(fresh))}
        for prefix, new in fresh.items():
            arrays |= {prefix + name: value for name, value in new.items()}
        return npz_bytes(arrays) if arrays else b""

    def records(self) -> Iterator[tuple[Path, Record]]:
        """Every collected record below the folder that can be read, by path; `load_records` names one that cannot."""
        for path in record_paths(self.out):
            try:
                yield path, load_record(path)
            except (UserError, FileNotFoundError):
                continue

    def _cell_path(self, cell: CellAddress, suffix: str) -> Path:
        return self.cells / cell.group.key / f"{cell.stem}{suffix}"

    def _load(self, path: Path) -> Record | None:
        try:
            status = self.place(path.relative_to(self.out)).stat()
        except OSError:
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if path not in self._read or self._read[path][0] != stamp:
            try:
                self._read[path] = (stamp, load_record(path))
            except FileNotFoundError:  # collected in between
                return None
            except UserError as error:
                if not self._mends:
                    raise
                self._put_aside(path, error)
                return None
        return self._read[path][1]


def _merged_rows(records: Sequence[Record]) -> tuple[dict[tuple[int, int], Row], list[Provenance]]:
    """Rows of `records` by (index, seed), those of later records in the place of earlier ones, and the provenances that
    they name, each once."""
    chosen = {(row.index, row.seed): (record, row) for record in records for row in record.rows}
    rows: dict[tuple[int, int], Row] = {}
    places: dict[str, int] = {}
    provenances: list[Provenance] = []
    for at in sorted(chosen):
        record, row = chosen[at]
        if row.provenance is not None:
            found = record.provenance_of(row)
            text = found.model_dump_json()
            if text not in places:
                places[text] = len(provenances)
                provenances.append(found)
            row = row.model_copy(update={"provenance": places[text]})
        rows[at] = row
    return rows, provenances


def _described(name: str, data: bytes | None, kept: bool, rows: list[Row]) -> Predictions | None:
    if kept:
        return Predictions(path=name, sha256=bytes_sha256(data), size_bytes=len(data)) if data else None
    return Predictions(path=name, sha256=rows_sha256(rows), size_bytes=len(data or b""), kept=False)


def rows_sha256(rows: list[Row]) -> str:
    """What stands for a side-car that is not kept: the hash of its rows' hashes."""
    return sha256_json([[row.index, row.seed, row.predictions_sha256] for row in rows])


OWN_FOLDERS = (".cells", ".bank", ".scratch", ".logs", ".damaged", "models")
"""What the store and a run keep below the folder, apart from records."""
_STEM = re.compile(r"-?\d+--?\d+")


def checked_sidecar(path: Path, record: Record) -> bytes:
    """The bytes of the side-car of the record in `path`, of the hash in the record; empty where none is kept.

    Raises:
        UserError: it is absent, damaged, or not the record's.
    """
    if record.predictions is None or not record.predictions.kept:
        return b""
    sidecar = path.with_suffix(".npz")
    if record.predictions.path != sidecar.name:
        raise UserError(
            f"predictions.path: expected {sidecar.name}, got {record.predictions.path!r:.100}; restore the "
            "record from a copy"
        )
    try:
        data = sidecar_bytes(sidecar)
    except UserError as error:
        raise UserError(f"side-car {sidecar.name} cannot be read: {error}") from None
    if bytes_sha256(data) != record.predictions.sha256:
        raise UserError(
            f"side-car {sidecar.name}: expected sha256 {record.predictions.sha256[:12]} of the record, got "
            f"{bytes_sha256(data)[:12]}; restore both from a copy"
        )
    return data


def read_group(path: Path) -> tuple[Record, SidecarArrays]:
    """A record and the arrays of its side-car, of one moment: a run that writes the two meanwhile is waited for.

    Raises:
        UserError: one of them cannot be read, or they do not belong together.
    """
    with undisturbed(path):
        record = load_record(path)
        data = checked_sidecar(path, record)
    return record, arrays_of(data, path.with_suffix(".npz")) if data else {}


STUDIES = "studies"
"""Folder of studies inside a folder of records: many settings of one method, with the rows they are compared with.

On a board they would bury the row as configured, and make its corrections for many comparisons harsher.
"""


def record_paths(folder: Path, *, studies: bool = False) -> list[Path]:
    """Record files below `folder` (or `folder` itself when it is one); hidden folders are not entered.

    Args:
        studies: whether the records of the folder's studies are among them: some lie in the folder itself, too, and
            ``<folder>/studies/<name>`` is a folder of records of its own.
    """
    if folder.is_file():
        return [folder.resolve() if folder.is_symlink() else folder]
    found = (path for path in files_below(folder, ".json") if _RECORD_NAME.fullmatch(path.name))
    return sorted(path for path in found if studies or STUDIES not in path.relative_to(folder).parts)


_RECORD_NAME = re.compile(r"[^.].*-[0-9a-f]{12}\.json")
_NUMBERS = re.compile(r"\[\n\s*([\d.eE+-]+(?:,\n\s*[\d.eE+-]+)*)\n\s*\]")


def load_record(path: Path) -> Record:
    """The record in a file, of any known schema version.

    Raises:
        UserError: names the file and what is wrong with it: no regular file, too large, no such JSON, another schema,
            names that cannot be parts of a path.
        FileNotFoundError: it is gone.
    """
    try:
        record = Record.model_validate(migrate(read_json(path, links=False)))
        _ = GroupAddress.of(record).path
        return record
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not a valid record: {invalid(where, first['input'], first['msg'])}") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a valid record: {error}; restore it from a copy, or move it away") from None


def record_bytes(record: Record) -> bytes:
    """The one text of a record: field order, indent 1, lists of numbers on one line; sweeps and energy only where there
    are. A record that was read from a file without `control` is written without it, so that older files stay as
    they are."""
    unswept = set() if record.sweeps else {"sweeps"}
    unread = set() if any(row.train_j is not None for row in record.rows) else {"train_j"}
    undeclared = {"control"} - record.model_fields_set
    absent: dict[str, Any] = dict.fromkeys(unswept | undeclared, True) | {"rows": {"__all__": unswept | unread}}
    if not any(origin.cpu_flags for origin in record.provenances):
        absent["provenances"] = {"__all__": {"cpu_flags"}}
    text = json.dumps(record.model_dump(mode="json", exclude=absent), indent=1, ensure_ascii=False, allow_nan=False)
    # One number a line would make a confusion matrix a page long.
    return (_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n").encode()
