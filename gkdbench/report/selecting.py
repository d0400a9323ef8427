"""Parts of a board, and records, by the names that their rows carry: ``method=glnn|kd,dataset=cora``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gkdbench.errors import UnknownName, UserError
from gkdbench.options import chosen_values
from gkdbench.records.schema import Record
from gkdbench.report.model import Board, Table, TableRow

Only = Mapping[str, str]

_OF_RECORD: dict[str, Callable[[Record], str]] = {
    "method": lambda record: record.method,
    "dataset": lambda record: record.dataset,
    "split": lambda record: record.split,
    "setting": lambda record: record.setting,
    "variant": lambda record: str(record.config.get("variant", "corrected")),
    "backbone": lambda record: str(record.config.get("backbone", "")),
    "recipe": lambda record: str(record.config.get("recipe") or ""),
    "key": lambda record: record.key,
}
FIELDS = tuple(_OF_RECORD)


def parse_only(text: str | None, option: str = "--only") -> dict[str, str]:
    """Field -> value, or values with ``|`` between them.

    Raises:
        UserError: no ``=``, an unknown field, or a field twice.
    """
    return chosen_values(text or "", FIELDS, option)


def choose_records(records: Sequence[Record], only: Only, option: str = "--only") -> list[Record]:
    """The records that match.

    Raises:
        UnknownName: none does, because of a value that no record has.
        UserError: none does, because of the combination.
    """
    chosen = [record for record in records if _matches(record, only)]
    if chosen or not only:
        return chosen
    for field, value in only.items():
        if field != "key" and not any(_matches(record, {field: value}) for record in records):
            known = {_OF_RECORD[field](record) for record in records} - {""}
            raise UnknownName(f"{field} of these records", value, known)
    asked = ",".join(f"{field}={value}" for field, value in only.items())
    raise UserError(f"{option}: expected records that match, got none for {asked}; leave out a part of it")


def _matches(record: Record, only: Only) -> bool:
    def fits(field: str, value: str) -> bool:
        own, wanted = _OF_RECORD[field](record), value.split("|")
        return own.startswith(tuple(wanted)) if field == "key" else own in wanted

    return all(fits(field, value) for field, value in only.items())


def part_of(board: Board, records: Sequence[Record]) -> Board:
    """The rows of `board` that `records` are behind; comparisons and ranks stay those of the whole board.

    Summaries are left out: their ranks are among all rows.
    """
    keys = {record.key for record in records}
    places = {(record.dataset, record.split, record.label) for record in records}
    tables = [part for table in board.tables if (part := _rows_of(table, keys)) is not None]
    failures = tuple(f for f in board.failures if (f.dataset, f.split, f.label) in places)
    missing = tuple(m for m in board.missing if m.expected.key in keys)
    return replace(board, tables=tuple(tables), summaries=(), failures=failures, missing=missing)


def _rows_of(table: Table, keys: set[str]) -> Table | None:
    def kept(entry: TableRow) -> bool:
        return entry.key in keys

    sections = [
        replace(section, entries=tuple(filter(kept, section.entries)))
        for section in table.sections
        if any(map(kept, section.entries))
    ]
    return replace(table, sections=tuple(sections)) if sections else None
