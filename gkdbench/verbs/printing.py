"""How verbs print: aligned columns for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from gkdbench.printable import printable, printable_json


def say(*texts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """As `print`, for texts that may come from others: control characters are written out."""
    print(*(printable(str(text)) for text in texts), file=file, end=end, flush=flush)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print `rows` under a head of `columns`, aligned; the last column is cut to the terminal's width."""
    import shutil

    width = shutil.get_terminal_size((120, 40)).columns
    cells = [
        [printable(str(row.get(column) if row.get(column) is not None else "")) for column in columns] for row in rows
    ]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        text = "  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()
        print(text if len(text) <= width or not sys.stdout.isatty() else text[: width - 1] + "…")


def show(value: Any, *, as_json: bool, columns: Sequence[str] | None = None) -> None:
    """Print `value` as JSON, or a list of rows as a table, or a mapping as one ``name: value`` a line."""
    if as_json:
        print(printable_json(json.dumps(value, indent=1, ensure_ascii=False, default=str)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            say(f"{key}: {item}")
    else:
        table(value, columns or list(value[0] if value else ()))
