"""Records from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.records.key import identity_of
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays, read_npz
from gkdbench.records.store import STUDIES, GroupAddress, load_record, record_paths


def load_records(path: str | Path) -> list[Record]:
    """Every record under a folder, or the one of a file, in the order of their paths; older schemas are migrated.

    Records of the folder's studies stay out.

    Raises:
        UserError: no such path, or a file that is not a record, by name.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(
            f"{root} does not exist: expected a folder with records or one record (*.json), got no such path"
        )
    return [record for file in record_paths(root) if (record := _unless_gone(file)) is not None]


def _unless_gone(file: Path) -> Record | None:
    """The record in `file`; None when a process that writes the folder has removed it since it was listed."""
    try:
        return load_record(file)
    except FileNotFoundError:
        return None


def study_folders(paths: Iterable[str | Path], name: str) -> list[Path]:
    """The folders of study `name` inside the folders `paths`; none where it has not been run."""
    return [folder for path in paths if (folder := Path(path) / STUDIES / name).is_dir()]


def without_repeats(records: Sequence[Record]) -> list[Record]:
    """`records`, but for swept ones whose twin without a sweep is there: the same training, with the same scores."""
    keys = {record.key for record in records}
    return [r for r in records if not r.sweeps or replace(identity_of(r), sweeps={}).key not in keys]


def load_curves(paths: Iterable[str | Path], record: Record) -> SidecarArrays:
    """The arrays of `record`'s side-car, below one of the folders `paths` (or next to one of the files).

    Raises:
        UserError: none of them has it.
    """
    name = GroupAddress.of(record).path.with_suffix(".npz")
    for path in map(Path, paths):
        for file in (path / name, path.with_suffix(".npz")):
            if file.name == name.name and file.is_file():
                return read_npz(file)
    raise UserError(f"{record.label}: expected the side-car {name} next to its record, got no file")
