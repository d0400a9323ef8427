"""Across data sets: one split id and setting, every data set a column, ranks over complete rows only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gkdbench.report.model import Summary, SummaryRow, Table, TableRow
from gkdbench.report.statistics import average_ranks


def summaries(board_tables: Sequence[Table]) -> list[Summary]:
    """One summary per (split id, setting, protocol) and standard teacher, where two or more data sets have one table
    each.

    Rows trained alone are in every one of them; forms of official code and their own teachers in none. A data set whose
    runs come in several kinds (threads, devices, ...) is left out: its rows have twins. So are splits with a remark:
    they are for audits and for comparisons with publications.
    """
    places: dict[tuple[str, str, int], list[Table]] = {}
    for table in board_tables:
        if not table.notes and not table.remarks:
            places.setdefault((table.split, table.setting, -table.protocol), []).append(table)
    found = []
    for (split, setting, _), members in sorted(places.items()):
        sections = [section for table in members for section in table.sections]
        taught = sorted({section.title for section in sections if section.kind == "taught"})
        solo = sorted({section.title for section in sections if section.kind == "solo"})
        if len(members) > 1:
            found += [_summary(split, setting, title, members) for title in taught or solo]
    return found


def _summary(split: str, setting: str, title: str, board_tables: Sequence[Table]) -> Summary:
    tables = {
        table.dataset: {
            entry.name: entry
            for section in table.sections
            if section.kind == "solo" or (section.kind == "taught" and section.title == title)
            for entry in section.entries
        }
        for table in board_tables
    }
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    means = {name: {dataset: _mean(table.get(name)) for dataset, table in tables.items()} for name in names}
    ranks = average_ranks(means)
    rows = [
        SummaryRow(
            name,
            found := tuple(table.get(name) for table in tables.values()),
            ranks.get(name),
            Counter(entry.versus.outcome for entry in found if entry and entry.versus and entry.versus.outcome),
        )
        for name in names
    ]
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0.0, row.name))
    return Summary(split, setting, title, tuple(tables), tuple(rows), board_tables[0].protocol)


def _mean(entry: TableRow | None) -> float | None:
    found = entry.mean_std if entry else None
    return found[0] if found else None
