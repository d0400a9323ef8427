"""The board for a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from gkdbench.printable import printable
from gkdbench.report.cells import BY_KEY, filled
from gkdbench.report.model import Board, Table

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = ("row", "score", "n", "gap", "published", "verdict", "versus", "inference", "latency", "epoch")
LEFT = ("row", "versus", "verdict")


def to_text(board: Board, *, width: int = 120, color: bool = False) -> str:
    """One table per data set, split, setting and protocol; columns that are empty throughout a table are left out.

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
    from rich import table as rich_table
    from rich.box import SIMPLE_HEAD
    from rich.text import Text

    shown = {cell.key for cell in filled(table.entries)}
    keys = [key for key in SHOWN if key in shown]
    title = printable(" · ".join([table.dataset, *table.heading, *table.remarks]))
    drawn = rich_table.Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        drawn.add_column(Text(BY_KEY[key].title), justify="left" if key in LEFT else "right")
    for section in table.sections:
        if len(table.sections) > 1:
            drawn.add_row(Text(printable(section.title), "italic"))
        for entry in section.entries:
            style = "bold" if entry.bold else ""
            drawn.add_row(*(Text(printable(BY_KEY[key].text(entry)), style) for key in keys))
    console.print(drawn)
