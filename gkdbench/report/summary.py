"""Across data sets: one split id and setting, every data set a column, ranks over complete rows only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gkdbench.report.model import Column, Entry, Summary, SummaryRow
from gkdbench.report.statistics import average_ranks


def summaries(columns: Sequence[Column]) -> list[Summary]:
    """One summary per (split id, setting) that has two or more data sets, each with one table.

    A data set whose runs come in several kinds (threads, devices, ...) is left out: its rows have twins.
    """
    places: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        if not column.notes:
            places.setdefault((column.split, column.setting), []).append(column)
    return [_summary(*place, members) for place, members in sorted(places.items()) if len(members) > 1]


def _summary(split: str, setting: str, columns: Sequence[Column]) -> Summary:
    tables = {column.dataset: {_name(entry): entry for entry in column.entries if entry.variant == "corrected"}
              for column in columns}  # fmt: skip
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    means = {name: {dataset: _mean(table.get(name)) for dataset, table in tables.items()} for name in names}
    ranks = average_ranks(means)
    rows = [
        SummaryRow(
            name,
            found := tuple(table.get(name) for table in tables.values()),
            ranks.get(name),
            Counter(entry.versus.outcome for entry in found if entry and entry.versus),
        )
        for name in names
    ]
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0.0, row.name))
    return Summary(split, setting, tuple(tables), tuple(rows))


def _name(entry: Entry) -> str:
    return entry.name if entry.teacher is None else f"{entry.name}, taught by {entry.teacher}"


def _mean(entry: Entry | None) -> float | None:
    found = entry.mean_std if entry else None
    return found[0] if found else None
