"""Protocol versions and the marks of splits: what a table says of itself, and which protocol a page takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gkdbench.records.schema import SELECTION, Record

RULES = {1: "first"}
"""Protocol version -> its rule of selection, where that is not today's."""
AUDIT_ONLY = "audit only: validation is the test part, no result"
REPLICATION_ONLY = "exists to compare with publications"
REPLICATION_SPLITS = ("cpf-lcc-20-30/seed0",)
"""Split ids that exist to compare with publications (docs/protocol.md, section 2)."""


def follows_protocol(record: Record) -> bool:
    """Whether `record` was selected by the rule of its protocol; records of studies of the rule were not."""
    return record.selection == RULES.get(record.protocol_version, SELECTION)


def remarks(record: Record) -> tuple[str, ...]:
    """What a reader of a table of `record` must know of its split."""
    marked = ((AUDIT_ONLY, record.audit_only), (REPLICATION_ONLY, record.split in REPLICATION_SPLITS))
    return tuple(text for text, on in marked if on)


def protocol_text(version: int) -> str:
    """``protocol 1``."""
    return f"protocol {version}"


def best_protocol(versions: Iterable[int], found: Callable[[int], tuple[int, ...]]) -> int | None:
    """The protocol version under which most is found, of equal ones the newest; None where there is no version.

    Args:
        versions: to choose from.
        found: how much there is under one: numbers, the first counts most.
    """
    known = sorted(set(versions))
    return max(known, key=lambda version: (found(version), version)) if known else None


def of_protocol(records: Sequence[Record], version: int | None) -> list[Record]:
    """Those of `records` that were made under one protocol."""
    return [record for record in records if record.protocol_version == version]
