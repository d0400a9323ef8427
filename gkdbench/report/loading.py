"""Records from a folder."""

from __future__ import annotations

from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.records.store import load_record, record_paths


def load_records(path: str | Path) -> list[Record]:
    """Every record under a folder, or the one of a file, in the order of their paths; older schemas are migrated.

    Raises:
        UserError: no such path, or a file that is no record, by name.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"{root} does not exist; wanted a folder with records or one record (*.json)")
    return [load_record(file) for file in record_paths(root)]
