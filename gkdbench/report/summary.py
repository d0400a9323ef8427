"""Across data sets: one split id and setting, every data set a column, one row a method, ranks over complete rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gkdbench.report.model import Summary, SummaryRow, Table, TableRow
from gkdbench.report.ranksets import rank_sets, said
from gkdbench.report.rownames import MAIN, RowName, row_name
from gkdbench.report.statistics import rank_test, ranked

Rows = Mapping[str, TableRow]
"""Data set -> the row there."""


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
    datasets = tuple(table.dataset for table in board_tables)
    methods = _methods(title, board_tables)
    parents = {name: _parent(name, methods) for name in methods}
    own = {name: rows for name, rows in methods.items() if parents[name] is None}
    complete = {
        dataset: [name.plain for name, rows in own.items() if dataset in rows and rows[dataset].complete]
        for dataset in datasets
    }
    sets = rank_sets(split, title, complete)
    means = {name.plain: {dataset: _mean(rows.get(dataset)) for dataset in datasets} for name, rows in own.items()}
    ranks = ranked(means, sets)
    whole = sum(bool(sets) and all(of[dataset] is not None for dataset in sets) for of in means.values())
    every = [_row(name, rows, datasets, parents[name]) for name, rows in methods.items()]
    shown = _in_order([replace(row, rank=None if row.parent else ranks.get(row.name)) for row in every])
    return Summary(
        split,
        setting,
        title,
        datasets,
        tuple(_with_sizes(row) for row in shown),
        board_tables[0].protocol,
        rank_sets=sets,
        test=rank_test(means, sets),
        said=said(sets, whole, len(own) - whole),
    )


def _methods(title: str, board_tables: Sequence[Table]) -> dict[RowName, dict[str, TableRow]]:
    """Name -> its row on each data set. Sizes are part of a name where one data set has several rows without them."""
    found: list[tuple[str, RowName, TableRow]] = [
        (table.dataset, row_name(entry.label, entry.aggregate), entry)
        for table in board_tables
        for section in table.sections
        if section.kind == "solo" or (section.kind == "taught" and section.title == title)
        for entry in section.entries
    ]
    count = Counter((dataset, name.identity) for dataset, name, _ in found)
    twins = {identity for (_, identity), number in count.items() if number > 1}
    methods: dict[RowName, dict[str, TableRow]] = {}
    for dataset, name, entry in found:
        known = RowName(entry.label, (), "", entry.aggregate) if name.identity in twins else replace(name, sizes="")
        methods.setdefault(known, {})[dataset] = entry
    return methods


def _parent(name: RowName, methods: Mapping[RowName, Rows]) -> str | None:
    """The row under which an option, or another aggregate, folds out; None for a method itself."""
    bases: list[RowName] = []
    if name.aggregate not in MAIN:
        bases.append(replace(name, aggregate="mean of peers"))
    if name.options:
        bases += [replace(name, options=(), aggregate=aggregate) for aggregate in MAIN]
    if " + " in name.base:
        bases += [replace(name, base=name.base.split(" + ")[0], options=(), aggregate=main) for main in MAIN]
    known = (base for base in bases if base in methods)
    return next((base.plain for base in known if _method(methods[base]) == _method(methods[name])), None)


def _method(rows: Rows) -> str:
    return next(iter(rows.values())).method


def _row(name: RowName, rows: Rows, datasets: Sequence[str], parent: str | None) -> SummaryRow:
    found = tuple(rows.get(dataset) for dataset in datasets)
    sizes = tuple(row_name(entry.label, entry.aggregate).sizes if entry else "" for entry in found)
    tally = Counter(entry.versus.outcome for entry in found if entry and entry.versus and entry.versus.outcome)
    return SummaryRow(name.plain, found, sizes, None, tally, parent)


def _with_sizes(row: SummaryRow) -> SummaryRow:
    """Sizes that are the same everywhere stand in the name, others in the cells."""
    known = {size for size, entry in zip(row.sizes, row.entries, strict=True) if entry is not None}
    if len(known) != 1:
        return row
    entry = next(entry for entry in row.entries if entry is not None)
    return replace(row, name=entry.name, sizes=tuple("" for _ in row.sizes))


def _in_order(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Ranked rows first, best first, options under their method."""
    names = {row.name for row in rows if row.parent is None}

    def top(row: SummaryRow) -> str:
        parent = row.parent
        while parent is not None and parent not in names:
            parent = next((other.parent for other in rows if other.name == parent), None)
        return parent or row.name

    rank = {row.name: row.rank.average for row in rows if row.rank}
    return sorted(rows, key=lambda row: (rank.get(top(row), float("inf")), top(row), row.parent is not None, row.name))


def _mean(entry: TableRow | None) -> float | None:
    found = entry.mean_std if entry else None
    return found[0] if found else None
