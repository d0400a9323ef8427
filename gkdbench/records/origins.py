"""Whether the rows of one record come from one place."""

from __future__ import annotations

from gkdbench.records.schema import Record


def mixed_fields(record: Record) -> list[str]:
    """``["2 of torch"]``: how many commits, versions of torch or processors made the rows, where more than one did."""
    found = [record.provenance_of(row) for row in record.rows]
    return [
        f"{len(values)} of {name}"
        for name in ("git_commit", "torch", "cpu", "cpu_flags")
        if len(values := {str(getattr(origin, name)) for origin in found}) > 1
    ]
