"""The board, or a selection of it, as Markdown; and tables put into a README, so that no cell is written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gkdbench.errors import UnknownName, UserError
from gkdbench.printable import printable
from gkdbench.report.cells import BY_KEY, CELLS, filled, score
from gkdbench.report.model import Board, Summary, Table, TableRow
from gkdbench.report.protocols import best_protocol, protocol_text
from gkdbench.report.summarycells import SUMMARY_TITLES, summary_numbers, summary_scores, tested


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and cells a table shows; an empty tuple keeps everything.

    Args:
        datasets, splits, settings, methods, variants: kept values. tiers: the same; published settings by default.
        cells: keys of `gkdbench.report.cells.CELLS`, in order.
        compared: only rows with a verdict other than "not comparable".
        protocols: version of the protocol; none: the one that has rows in most places, and the most complete rows, of
            equal ones the newest.
    """

    datasets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ("published",)
    cells: tuple[str, ...] = ("row", "score", "n", "gap", "published", "verdict")
    compared: bool = False
    protocols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in self.cells:
            if key not in BY_KEY:
                raise UnknownName("column", key, BY_KEY)

    def rows(self, board: Board) -> list[tuple[Table, TableRow]]:
        """The selected rows of one protocol with their table, in the board's order."""
        fitting = self._fitting(board)

        def found(version: int) -> tuple[int, ...]:
            rows = [(table, entry) for table, entry in fitting if table.protocol == version]
            places = {(table.dataset, table.split, table.setting) for table, _ in rows}
            return len(places), sum(entry.complete for _, entry in rows)

        version = best_protocol((table.protocol for table, _ in fitting), found)
        return [(table, entry) for table, entry in fitting if table.protocol == version]

    def _fitting(self, board: Board) -> list[tuple[Table, TableRow]]:
        return [
            (board_table, entry)
            for board_table in board.tables
            for entry in board_table.entries
            if _kept(board_table.dataset, self.datasets)
            and _kept(board_table.split, self.splits)
            and _kept(board_table.setting, self.settings)
            and _kept(board_table.tier, self.tiers)
            and _kept(str(board_table.protocol), self.protocols)
            and _kept(entry.method, self.methods)
            and _kept(entry.variant, self.variants)
            and (not self.compared or any(verdict.status != "not comparable" for verdict in entry.verdicts))
        ]


def markdown_table(board: Board, selection: Selection) -> str:
    """One flat table of the selected rows, led by data set, split id and setting; below it which protocol they have."""
    rows = selection.rows(board)
    if not rows:
        raise UserError("no row of the board fits the selection; run the suite, or widen it")
    cells = [BY_KEY[key] for key in selection.cells]
    has_notes = any(board_table.notes or board_table.remarks for board_table, _ in rows)
    titles = ["Data set", "Split", "Setting", *(["Kind"] if has_notes else []), *(cell.title for cell in cells)]
    lines = []
    for board_table, entry in rows:
        where = [
            board_table.dataset,
            board_table.split,
            board_table.setting,
            *([", ".join([*board_table.notes, *board_table.remarks])] if has_notes else []),
        ]
        form = " (as released)" if entry.variant == "as_released" else ""  # a board has a section for it
        texts = [cell.text(entry) + (form if cell.key == "row" else "") for cell in cells]
        lines.append([*map(plain, where), *(_bold(entry, c.key, t) for c, t in zip(cells, texts, strict=True))])
    return f"{table(titles, lines)}\n\nAll rows: {protocol_text(rows[0][0].protocol)}."


def to_markdown(board: Board) -> str:
    """The whole board: one heading per data set and table, failures and missing runs at the end."""
    parts = ["# gkdbench board", f"{board.records} records, {board.runs} runs. Scores in percent."]
    for summary in board.summaries:
        parts += [
            f"## {plain('Across data sets: ' + ', '.join(summary.heading))}",
            _summary(summary),
        ]
    for dataset, tables in board.datasets.items():
        parts.append(f"## {plain(dataset)}")
        parts += [f"> {plain(note)}" for note in dict.fromkeys(c.data.note for c in tables) if note]
        for board_table in tables:
            parts.append("### " + plain(" · ".join(board_table.heading)))
            parts += [f"> {plain(remark)}" for remark in board_table.remarks]
            cells = filled(board_table.entries)
            for section in board_table.sections:
                parts.append(f"{plain(section.title)}{': ' + plain(section.note) if section.note else ''}")
                rows = [[_bold(e, cell.key, cell.text(e)) for cell in cells] for e in section.entries]
                parts.append(table([cell.title for cell in cells], rows))
            reasons = dict.fromkeys(
                f"- {plain(e.name)} ({e.variant}), {plain(v.claim)}: {plain(v.why)}"
                for e in board_table.entries
                for v in e.verdicts
                if v.status == "not comparable"
            )
            if reasons:
                parts.append("Not comparable:\n\n" + "\n".join(reasons))
    if board.failures:
        titles = ["Data set", "Split", "Row", "Run", "Status", "Reason", "Again"]
        rows = [
            [
                plain(text)
                for text in (f.dataset, f.split, f.label, f"{f.index}:{f.seed}", f.status, f.reason, f.command)
            ]
            for f in board.failures
        ]
        parts += ["## Failed runs", table(titles, rows)]
    if board.missing:
        rows = [
            [
                *map(plain, (m.expected.dataset, m.expected.split, m.expected.setting, m.expected.label)),
                str(len(m.runs)),
            ]
            for m in board.missing
        ]
        parts += ["## Missing runs", table(["Data set", "Split", "Setting", "Row", "Runs"], rows)]
    parts += ["## Columns", "\n".join(f"- {cell.title}: {cell.meaning}" for cell in CELLS)]
    return "\n\n".join(parts) + "\n"


def _summary(summary: Summary) -> str:
    titles = ["Row", *map(plain, summary.datasets), *SUMMARY_TITLES]
    rows = []
    for row in summary.rows:
        name = f"↳ {plain(row.name)}" if row.parent else plain(row.name)
        rows.append([name, *map(plain, summary_scores(row)), *summary_numbers(row)])
    return "\n\n".join([table(titles, rows), plain(f"{summary.said} {tested(summary.test)}".strip())])


def marked_tables(text: str) -> dict[str, dict[str, str]]:
    """Name -> keys of every ``<!-- table NAME key=value ... -->`` in `text`."""
    found = re.findall(r"<!-- table (\S+)((?: \S+=\S+)*) -->", text)
    return {name: dict(pair.split("=", 1) for pair in keys.split()) for name, keys in found}


def splice(text: str, name: str, markdown: str) -> str:
    """`text` with the text between ``<!-- table NAME key=value ... -->`` and ``<!-- end NAME -->`` replaced."""
    starts = list(re.finditer(rf"<!-- table {re.escape(name)}(?: \S+=\S+)* -->", text))
    end = f"<!-- end {name} -->"
    if len(starts) != 1 or text.count(end) != 1 or starts[0].end() > text.index(end):
        raise UserError(
            f"expected <!-- table {name} --> and {end} once each and in this order, got other marks; write both where "
            "the table belongs"
        )
    return f"{text[: starts[0].end()]}\n{markdown.strip()}\n{text[text.index(end) :]}"


def _kept(value: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or value in wanted


def score_cell(entry: TableRow) -> str:
    """The score of `entry` as Markdown, bold where it wins."""
    return _bold(entry, "score", score(entry))


def _bold(entry: TableRow, key: str, text: str) -> str:
    return f"**{plain(text)}**" if entry.bold and key == "score" else plain(text)


def plain(text: str) -> str:
    """`text` without meaning for Markdown, on one line."""
    return re.sub(r"([\\|`*_<>\[\]~])", r"\\\1", " ".join(printable(text).split()))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
