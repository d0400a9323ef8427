"""How verbs print: text that fits the terminal for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TextIO

from gkdbench.printable import printable, printable_json


def say(*texts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """As `print`, for texts that may come from others: control characters are written out."""
    print(*(printable(str(text)) for text in texts), file=file, end=end, flush=flush)


WIDTH = 80
"""Columns where no terminal and no ``COLUMNS`` says how many there are."""
NARROWEST = 20
"""A column of words is not made narrower than this; it moves below its row instead."""


def terminal_width() -> int:
    """Columns of the terminal, or ``COLUMNS``; 80 for files and pipes."""
    return max(40, shutil.get_terminal_size((WIDTH, 40)).columns)


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """`text` in lines of at most `width` columns; lines after the first begin with `indent`. No word is cut."""
    lines = textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return lines or [""]


def refilled(text: str, width: int) -> list[str]:
    """Paragraphs of a docstring in lines of `width`; paragraphs with lines of several indents keep their lines."""
    lines: list[str] = []
    for blank, group in groupby(text.splitlines(), key=lambda line: not line.strip()):
        paragraph = list(group)
        indents = {line[: len(line) - len(line.lstrip())] for line in paragraph}
        if blank:
            lines += [""] * len(paragraph)
        elif len(indents) == 1:
            indent = indents.pop()
            joined = indent + " ".join(line.strip() for line in paragraph)
            lines += wrapped(joined, width, indent=indent)
        else:
            for line in paragraph:
                indent = line[: len(line) - len(line.lstrip())]
                lines += wrapped(line, width, indent=f"{indent}    ")
    return lines


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> list[str]:
    """`rows` under a head of `columns`, aligned, at most `width` wide where no single word is wider.

    The widest columns of words are wrapped first; when that is not enough, the last columns stand below their rows,
    each with its name.
    """
    cells = [
        [printable(str(row.get(column) if row.get(column) is not None else "")) for column in columns] for row in rows
    ]
    beside = len(columns)
    while True:
        widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(beside)]
        while sum(widths) + 2 * (beside - 1) > width:
            words = [i for i in range(1, beside) if widths[i] > NARROWEST and any(" " in line[i] for line in cells)]
            if not words:
                break
            widths[max(words, key=lambda i: widths[i])] -= 1
        if sum(widths) + 2 * (beside - 1) <= width or beside <= 2:
            break
        beside -= 1
    lines = _side_by_side(list(columns[:beside]), widths)
    for line in cells:
        lines += _side_by_side(line[:beside], widths)
        for name, text in zip(columns[beside:], line[beside:], strict=True):
            if text:
                lines += wrapped(f"    {name}: {text}", width, indent="      ")
    return lines


def _side_by_side(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One row of a table, in as many lines as its longest cell takes."""
    parts = [wrapped(text, size) if len(text) > size else [text] for text, size in zip(texts, widths, strict=True)]
    return [
        "  ".join(
            (part[i] if i < len(part) else "").ljust(size) for part, size in zip(parts, widths, strict=True)
        ).rstrip()
        for i in range(max(map(len, parts), default=0))
    ]


def show(value: Any, *, as_json: bool, columns: Sequence[str] | None = None) -> None:
    """Print `value` as JSON, or a list of rows as a table, or a mapping as one ``name: value`` a line."""
    if as_json:
        print(printable_json(json.dumps(value, indent=1, ensure_ascii=False, default=str)))
    elif isinstance(value, Mapping):
        say("\n".join(fact_lines(value, terminal_width())))
    else:
        names = columns or list(value[0] if value else ())
        say("\n".join(table_lines(value, names, terminal_width())))


def fact_lines(facts: Mapping[str, Any], width: int) -> list[str]:
    """Facts by name, empty ones left out: a text in one line where it fits, a mapping or a list one item a line.

    Items of a mapping that is called ``settings`` are written as Python writes them.
    """
    lines: list[str] = []
    for key, value in facts.items():
        if value in (None, "", (), [], {}):
            continue
        if isinstance(value, Mapping):
            lines.append(f"{key}:")
            for name, item in value.items():
                text = f"  {name} = {item!r}" if key == "settings" else f"  {name}: {item}"
                lines += wrapped(printable(text), width, indent="      ")
        elif isinstance(value, (list, tuple)):
            lines.append(f"{key}:")
            for item in value:
                lines += wrapped(printable(f"  - {item}"), width, indent="    ")
        elif "\n" in str(value):
            lines += refilled(printable(f"{key}: {value}"), width)
        else:
            lines += wrapped(printable(f"{key}: {value}"), width, indent="  ")
    return lines
