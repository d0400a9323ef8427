"""``profile docs``: tables and plots from stored results."""

from __future__ import annotations

import argparse
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.text_files import read_text, write_text
from gkdbench.verbs.printing import say


def docs(args: argparse.Namespace) -> int:
    """``gkdbench profile docs``: fill the marked blocks of a Markdown file, write the plots next to it."""
    from gkdbench.measure.tables import fill, plots, read_results

    stored = read_results([Path(path) for path in args.paths])
    into = Path(args.into)
    if not into.is_file():
        raise UserError(f"{into}: expected a Markdown file with marks like <!-- bench bars -->, got no file")
    write_text(into, fill(read_text(into), stored))
    for name, text in plots(stored).items():
        write_text(into.parent / name, text)
    say(f"filled: {into}")
    return 0
