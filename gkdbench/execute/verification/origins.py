"""Where the rows of a record come from: changed code, and more than one origin in one record. Neither is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gkdbench.records.origins import mixed_fields
from gkdbench.records.schema import Record


def dirty_rows(path: Path, record: Record) -> Iterator[str]:
    """Rows whose code was not that of the commit they name."""
    for row in record.rows:
        if record.provenance_of(row).git_dirty:
            yield f"{path}: row {row.index}-{row.seed}"


def mixed_origin(path: Path, record: Record) -> Iterator[str]:
    """One line where rows of a record were made by more than one commit, torch or processor."""
    if differ := mixed_fields(record):
        yield f"{path}: rows of more than one origin ({', '.join(differ)})"
