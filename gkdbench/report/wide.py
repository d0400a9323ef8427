"""Methods by columns: one line a method, one score for each (data set, split id, setting) that is requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gkdbench.errors import UserError
from gkdbench.report.markdown import plain, score_cell, table
from gkdbench.report.model import Board, Table, TableRow
from gkdbench.report.protocols import best_protocol


@dataclass(frozen=True, slots=True)
class WideSelection:
    """Which methods and columns a wide table shows.

    Args:
        columns: ``dataset/split/setting``, in order.
        methods: kept methods; none: all.
        variants: kept forms of the methods.
        protocols: version of the protocol; none: the one that has most of the columns, and the most complete rows in
            them, of equal ones the newest.
    """

    columns: tuple[str, ...]
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("corrected",)
    protocols: tuple[str, ...] = ()


def wide_table(board: Board, selection: WideSelection) -> str:
    """The table, all of one protocol, and a line with n, what the spread is, and which protocol.

    A row is what is printed before the first comma of its label (widths and numbers of experts differ between data
    sets) and its aggregate. Where a method has a row of its own and rows that are controls of it, the former is shown.

    Raises:
        UserError: a column that the board does not have, or several rows of one name in a column.
    """
    version = best_protocol(
        (t.protocol for t in board.tables if not selection.protocols or str(t.protocol) in selection.protocols),
        partial(_filled, board, selection),
    )
    found = [_column(board, name, version) for name in selection.columns]
    cells = [_cells(column, selection) for column in found]
    names = list(dict.fromkeys(name for entries in cells for name in entries))
    if not names:
        raise UserError("no row of the board fits the selection; run the suite, or widen it")
    several = len({(column.dataset, column.setting) for column in found}) < len(found)
    titles = [
        plain(" ".join([column.dataset, *([column.split] if several else []), column.setting])) for column in found
    ]
    runs = {len(entry.planned) for entries in cells for entry in entries.values()}
    lines = [[plain(name), *(_score(entries.get(name), tell_n=len(runs) > 1) for entries in cells)] for name in names]
    count = f"n = {runs.pop()} runs in every cell; " if len(runs) == 1 else ""
    below = f"{count}mean ± standard deviation (ddof=1). Protocol {version}."
    return f"{table(['Row', *titles], lines)}\n\n{below}"


def _filled(board: Board, selection: WideSelection, version: int) -> tuple[int, ...]:
    """How many of the columns one protocol has, and of the complete rows in them."""
    found = [t for name in selection.columns for t in _matching(board, name, version)]
    kept = (entry for t in found for entries in _groups(t, selection).values() for entry in entries)
    return len(found), sum(entry.complete for entry in kept)


def _matching(board: Board, name: str, version: int | None) -> list[Table]:
    return [
        c
        for c in board.tables
        if f"{c.dataset}/{c.split}/{c.setting}" == name and c.protocol == version and not c.notes
    ]


def _column(board: Board, name: str, version: int | None) -> Table:
    matching = _matching(board, name, version)
    if not matching:
        have = sorted({f"{c.dataset}/{c.split}/{c.setting}" for c in board.tables if c.protocol == version})
        raise UserError(f"no column {name!r}: expected dataset/split/setting, one of: {', '.join(have)}")
    return matching[0]


def _cells(table: Table, selection: WideSelection) -> dict[str, TableRow]:
    """Name -> the entry shown under it."""
    return {name: _only(name, entries) for name, entries in _groups(table, selection).items()}


def _groups(table: Table, selection: WideSelection) -> dict[str, list[TableRow]]:
    """Name -> the entries that have it."""
    groups: dict[str, list[TableRow]] = {}
    for entry in table.entries:
        if entry.variant in selection.variants and (not selection.methods or entry.method in selection.methods):
            groups.setdefault(_name(entry), []).append(entry)
    return groups


def _name(entry: TableRow) -> str:
    short = entry.label.split(",")[0]
    return short if entry.aggregate == "single" else f"{short}, {entry.aggregate}"


def _only(name: str, entries: Sequence[TableRow]) -> TableRow:
    own = [entry for entry in entries if not entry.control] if len(entries) > 1 else list(entries)
    if len(own) != 1:
        labels = "; ".join(entry.name for entry in entries)
        raise UserError(f"{len(entries)} rows are called {name!r} in one column: {labels}; keep fewer methods")
    return own[0]


def _score(entry: TableRow | None, *, tell_n: bool) -> str:
    if entry is None:
        return "–"
    return score_cell(entry) + (f" (n={len(entry.planned)})" if tell_n else "")
