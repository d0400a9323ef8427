"""Where the rows of a record come from: what contradicts the record, changed code, and more than one origin in one
record. The last two are no errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gkdbench.execute.verification.findings import Difference
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


def origin_differences(record: Record) -> Iterator[Difference]:
    """Provenances against each other, the rows that name them and the device."""
    origins = record.provenances
    named = {row.provenance for row in record.rows}
    if unnamed := sorted(set(range(len(origins))) - named):
        yield Difference("provenances", "each named by a row", f"none that names {unnamed[0]}")
    if len({origin.model_dump_json() for origin in origins}) != len(origins):
        yield Difference("provenances", "each once", "two equal ones")
    if record.protocol_version > 1 and origins and None in named:
        yield Difference("rows.provenance", "one of the record's provenances", None)
    for number, origin in enumerate(origins):
        gpu = None if record.device == "cpu" else record.device
        if origin.gpu != gpu:
            yield Difference(f"provenances.{number}.gpu", gpu, origin.gpu)
        for name in ("cuda", "driver"):
            if gpu is None and getattr(origin, name) is not None:
                yield Difference(f"provenances.{number}.{name}", None, getattr(origin, name))
