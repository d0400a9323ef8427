"""Which records are controls: rows that a method has to beat before it may be called better (protocol section 10)."""

from __future__ import annotations

from gkdbench.records.schema import Record


def is_control(record: Record) -> bool:
    """Whether `record` is a control of its table, as its method declares (`gkdbench.controls`)."""
    return record.control is not None
