"""The board for a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from gkdbench.printable import printable
from gkdbench.report.cells import BY_KEY, filled
from gkdbench.report.model import Board, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

SHOWN = ("row", "score", "n", "gap", "published", "verdict", "versus", "inference", "latency", "epoch")
LEFT = ("row", "versus", "verdict")
WORDS = {"row": 30, "versus": 26, "verdict": 26}
"""Columns of words: how wide they are at most where not everything fits on one line."""
NUMBERS = 14
"""The same of every other column."""
BETWEEN = 3
"""Columns that the drawing takes beside each cell."""


def to_text(board: Board, *, width: int = 120, color: bool = False) -> str:
    """One table per data set, split, setting and protocol; columns that are empty throughout a table are left out.

    What is too wide is wrapped between words; the columns that still do not fit follow in a second table below.

    Args:
        board: what `build` gave.
        width: of the terminal, in characters.
        color: ANSI styles; off for files and pipes.
    """
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, color_system="standard" if color else None)
    for table in board.tables:
        _print(table, console)
    for failure in board.failures:
        where = f"{failure.label} on {failure.dataset}, {failure.split}, run {failure.index}:{failure.seed}"
        console.print(Text(printable(f"{failure.status}: {where}: {failure.reason}\n  again: {failure.command}")))
    if board.missing:
        runs = sum(len(missing.runs) for missing in board.missing)
        console.print(
            Text(f"missing: {runs} runs of {len(board.missing)} rows; the same run command goes on with them")
        )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _print(table: Table, console: Console) -> None:
    from rich.text import Text

    title: Text | None = Text(printable(" · ".join([table.dataset, *table.heading, *table.remarks])), "bold")
    for keys in bands(table, console.width):
        console.print(_drawn(table, keys, title))
        title = None


def bands(table: Table, width: int) -> list[list[str]]:
    """The columns of `table` side by side; in several bands, each with the rows' names, where `width` is too small."""
    shown = {cell.key for cell in filled(table.entries)}
    keys = [key for key in SHOWN if key in shown]
    texts = {key: [BY_KEY[key].title, *(BY_KEY[key].text(entry) for entry in table.entries)] for key in keys}
    natural = {key: max(map(len, texts[key])) for key in keys}
    if sum(natural.values()) + BETWEEN * len(keys) <= width:
        return [keys]
    words = {key: max(len(word) for text in texts[key] for word in text.split() or [""]) for key in keys}
    sizes = {key: max(words[key], min(natural[key], WORDS.get(key, NUMBERS))) for key in keys}
    found, room = [["row"]], width - sizes["row"] - BETWEEN
    for key in keys:
        if key == "row":
            continue
        if sizes[key] + BETWEEN > room and len(found[-1]) > 1:
            found.append(["row"])
            room = width - sizes["row"] - BETWEEN
        found[-1].append(key)
        room -= sizes[key] + BETWEEN
    return found


def _drawn(table: Table, keys: list[str], title: RichText | None) -> RichTable:
    from rich import table as rich_table
    from rich.box import SIMPLE_HEAD
    from rich.text import Text

    drawn = rich_table.Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        drawn.add_column(Text(BY_KEY[key].title), justify="left" if key in LEFT else "right", overflow="fold")
    for section in table.sections:
        if len(table.sections) > 1:
            drawn.add_row(Text(printable(section.title), "italic"))
        for entry in section.entries:
            style = "bold" if entry.bold else ""
            drawn.add_row(*(Text(printable(BY_KEY[key].text(entry)), style) for key in keys))
    return drawn
