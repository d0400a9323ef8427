"""A record's side-car: there, of the hash and size in the record, and of its rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.execute.verification.findings import Difference
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays, arrays_of
from gkdbench.records.store import checked_sidecar, rows_sha256


def stored_arrays(path: Path, record: Record) -> SidecarArrays:
    """The arrays of all rows; empty where none are kept.

    Raises:
        UserError: they are absent, damaged, or not the record's.
    """
    if record.predictions is None:
        if any(row.predictions_sha256 for row in record.rows):
            raise UserError("predictions: expected a side-car for its rows with predictions, got none")
        return {}
    if not record.predictions.kept:
        if rows_sha256(record.rows) != record.predictions.sha256:
            raise UserError(
                "predictions.sha256: expected the side-car's hash to be that of its rows' hashes, got another"
            )
        return {}
    return arrays_of(checked_sidecar(path, record), path.with_suffix(".npz"))


def sidecar_differences(path: Path, record: Record, arrays: SidecarArrays) -> Iterator[Difference]:
    """Its size, and arrays that belong to no row with predictions."""
    if record.predictions is None:
        return
    if record.predictions.kept:
        size = path.with_suffix(".npz").stat().st_size
        if size != record.predictions.size_bytes:
            yield Difference("predictions.size_bytes", size, record.predictions.size_bytes)
    rows = {f"{row.index}-{row.seed}" for row in record.rows if row.predictions_sha256 is not None}
    strange = sorted({name.partition("/")[0] for name in arrays} - rows)
    if strange:
        text = f"its side-car has arrays of {', '.join(strange[:5])}, which no row of the record with predictions is"
        yield Difference("rows", sorted(rows), strange, text)
