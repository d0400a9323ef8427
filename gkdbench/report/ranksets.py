"""Over which data sets a table across data sets ranks its rows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def rank_tables() -> tuple[Mapping[str, Any], ...]:
    """The entries of ``rank_sets.toml``."""
    text = files("gkdbench.report").joinpath("rank_sets.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["table"])


def rank_sets(split: str, title: str, complete: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The data sets of the ranks: those that a suite names for the rows of this split and teacher, as far as the table
    has them; where no suite does, those on which more than half of the rows are complete.

    Args:
        title: of the section, ``Taught by SAGE 2x128``.
        complete: data set of the table -> names of its complete rows.
    """
    for named in rank_tables():
        if split in named["splits"] and named["taught_by"] in ("", title.removeprefix("Taught by ")):
            found = tuple(name for name in named["datasets"] if name in complete)
            if found:
                return found
    rows = {row for names in complete.values() for row in names}
    return tuple(name for name, names in complete.items() if 2 * len(set(names)) > len(rows))


def said(sets: Sequence[str], ranked: int, others: int) -> str:
    """``14 rows are complete on these 4 sets (...), 9 are not``."""
    where = f"these {len(sets)} sets ({', '.join(sets)})" if len(sets) > 1 else f"{', '.join(sets) or 'any set'}"
    if ranked < 2:
        return f"No ranks: {ranked} of {ranked + others} rows complete on {where}."
    return f"Ranks: {ranked} rows complete on {where}, {others} are not."
