"""What `gkdbench verify` reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkdbench.records.schema import Record, Row
from gkdbench.records.sidecar import SidecarArrays

TEXT_LENGTH = 300
"""Longest text of a finding: names and values come from files that others may have changed."""


@dataclass(frozen=True)
class Difference:
    """A field that something contradicts.

    Args:
        field: its name, as in the record's JSON: ``data.nodes``.
        expected, got: the values, where they are known.
        text: the sentence, where it is not "FIELD: expected EXPECTED, got GOT".
    """

    field: str
    expected: Any = None
    got: Any = None
    text: str = ""

    def __str__(self) -> str:
        text = self.text or f"{self.field}: expected {self.expected}, got {self.got}"
        return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "..."


@dataclass(frozen=True)
class VerifyFinding:
    """A difference and where it is; `row` is ``INDEX-SEED``, None for the whole record."""

    record: str
    row: str | None
    difference: Difference

    def __str__(self) -> str:
        where = self.record if self.row is None else f"{self.record}: row {self.row}"
        return f"{where}: {self.difference}"

    def as_json(self) -> dict[str, str | None]:
        """Plain values; what is not known is None."""
        expected, got = self.difference.expected, self.difference.got
        return {
            "record": self.record,
            "row": self.row,
            "field": self.difference.field or None,
            "expected": None if expected is None else f"{expected}"[:TEXT_LENGTH],
            "got": None if got is None else f"{got}"[:TEXT_LENGTH],
            "text": str(self.difference),
        }


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A row and the record that it is in."""

    path: Path
    record: Record
    row: Row

    def __str__(self) -> str:
        return f"{self.path}: row {self.row.index}-{self.row.seed}"


@dataclass(frozen=True, eq=False)
class CheckedRow(StoredRun):
    """A row with scores, and its arrays (names without the row's prefix)."""

    arrays: SidecarArrays


@dataclass
class VerifyReport:
    """What was found.

    Args:
        records, scores: how many were looked at, how many scores were computed again.
        wrong: what something contradicts.
        unchecked: what could not be computed again, and why.
        incomplete: records with fewer rows than their suite plans: a run that is not finished, or rows left out.
        dirty: rows whose code differed from its commit: no error, and nobody can get that code again.
        mixed: one line for each record whose rows were made by more than one commit, torch or processor.
    """

    records: int = 0
    scores: int = 0
    wrong: list[VerifyFinding] = field(default_factory=list)
    unchecked: list[VerifyFinding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    dirty: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is wrong, beginning with the record's path."""
        return [str(finding) for finding in self.wrong]

    @property
    def not_checked(self) -> list[str]:
        """One line for each thing that was not checked, beginning with the record's path."""
        return [str(finding) for finding in self.unchecked]

    @property
    def exit_code(self) -> int:
        """0: everything re-computes; 1: something does not; 3: nothing is wrong, and something was not checked."""
        return 1 if self.wrong else 3 if self.unchecked else 0

    def add(self, path: Path, row: Row | None, difference: Difference) -> None:
        """Something is wrong in a record, or in one of its rows."""
        self.wrong.append(VerifyFinding(str(path), None if row is None else f"{row.index}-{row.seed}", difference))

    def leave(self, path: Path, row: Row | None, difference: Difference) -> None:
        """Something was not checked."""
        self.unchecked.append(VerifyFinding(str(path), None if row is None else f"{row.index}-{row.seed}", difference))

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "records": self.records,
            "scores": self.scores,
            "problems": [finding.as_json() for finding in self.wrong],
            "not_checked": [finding.as_json() for finding in self.unchecked],
            "counts": {
                "problems": len(self.wrong),
                "not_checked": len(self.unchecked),
                "incomplete_records": len(self.incomplete),
                "dirty_rows": len(self.dirty),
                "mixed_records": len(self.mixed),
            },
            "incomplete_records": self.incomplete,
            "dirty_rows": self.dirty,
            "mixed_records": self.mixed,
        }
