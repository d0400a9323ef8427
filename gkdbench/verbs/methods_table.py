"""``gkdbench list methods``: a sentence and the paper of every method, by family, read without importing any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

WIDTH = 100
"""The widest that the table is, however wide the terminal."""
NAME, PAPER = 24, 26
"""Columns that a name and a paper take at most; a longer name has a line of its own."""
HOME = "gkdbench.methods"
BASELINES, THIRD_PARTY = "baselines", "third party"


def family_of(target: str, owner: str) -> str:
    """The family of a method.

    Args:
        target: ``"module:Class"``, as in its registry entry.
        owner: the distribution that the method comes from.

    Returns:
        The folder of `gkdbench.methods` of its module, "" for a module next to those folders;
        ``"third party (owner)"`` for a method of another package.
    """
    module = target.partition(":")[0]
    if not module.startswith(f"{HOME}."):
        return f"{THIRD_PARTY} ({owner})"
    folders = module.removeprefix(f"{HOME}.").split(".")[:-1]
    return folders[0] if folders else ""


def sentence_of(name: str, line: str) -> str:
    """What a method is, from the first line of its module's docstring: without its name, where it begins with it.

    ``"KD-R: Hinton's distillation."`` of method "kd" becomes ``"Hinton's distillation."``.
    """
    head, colon, rest = line.partition(": ")
    word = re.sub(r"[^a-z0-9]", "", head.lower())
    own = " " not in head and word.startswith(re.sub(r"[^a-z0-9]", "", name.lower()))
    found = rest if colon and own else line
    return found[:1].upper() + found[1:]


def citation(paper: str, year: int | None) -> str:
    """``"Wu et al. 2019"`` from ``"Wu, Souza, Zhang, ..., Title"``; "" without a year, the year alone without authors.

    Args:
        paper: surnames separated by commas, then the title. What is before " of " in front of the first surname
            ("baseline of", "reconstruction (X) of") is passed over.
    """
    if year is None:
        return ""
    first, *others = [part.strip() for part in paper.split(",")]
    first = first.rpartition(" of ")[2]
    if first.endswith(" et al."):
        return f"{first} {year}"
    parts = [first, *others[:-1]]  # the last part is the title's
    authors = parts[: next((i for i, part in enumerate(parts) if not re.fullmatch(r"[^\W\d_][\w'-]+", part)), None)]
    if not others or not authors:
        return str(year)
    named = f"{authors[0]} et al." if len(authors) > 2 else " & ".join(authors)
    return f"{named} {year}"


def method_lines(rows: Sequence[Mapping[str, Any]], width: int = WIDTH) -> list[str]:
    """The table, at most `width` and 100 columns wide where no single word is wider.

    Args:
        rows: per method its ``method`` (name), ``family``, ``sentence`` and ``cited`` paper.
    """
    families = sorted({row["family"] for row in rows}, key=lambda f: (f.startswith(THIRD_PARTY), f != BASELINES, f))
    name = min(NAME, max((len(row["method"]) for row in rows), default=0))
    width = min(width, WIDTH)
    paper = min(PAPER if width >= WIDTH else 14, max((len(row["cited"]) for row in rows), default=0))
    lines: list[str] = []
    for family in families:
        if family:
            lines += [*([""] if lines else []), family]
        for row in rows:
            if row["family"] == family:
                lines += _lines_of(row, name, paper, width)
    return lines


def _lines_of(row: Mapping[str, Any], name: int, paper: int, width: int) -> list[str]:
    """One method: name, sentence and paper; the rest of a long sentence below its beginning."""
    space = width - 2 - name - 2 - 2 - paper
    texts, papers = wrap(row["sentence"], space, break_on_hyphens=False) or [""], wrap(row["cited"], paper or 1)
    heads = [row["method"]]
    if len(row["method"]) > name:
        texts, papers = ["", *texts], ["", *papers]
    return [
        f"  {head:{name}}  {text:{space}}  {cited}".rstrip()
        for head, text, cited in (
            (_at(heads, i), _at(texts, i), _at(papers, i)) for i in range(max(len(texts), len(papers)))
        )
    ]


def _at(texts: Sequence[str], index: int) -> str:
    return texts[index] if index < len(texts) else ""
