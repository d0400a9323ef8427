"""A method or training module that is long says in one sentence in which order things happen."""

from __future__ import annotations

import ast
import re

from support.checkout import ROOT

LONG = 150
"""Lines above which the docstring has such a sentence."""


def order_sentence(source: str) -> str:
    """The sentence of a module's docstring that begins with "Order:"; empty if there is none."""
    found = re.search(r"^Order: [^.]+(?:\.[^.\s][^.]*)*\.", ast.get_docstring(ast.parse(source)) or "", re.MULTILINE)
    return found[0] if found else ""


def test_long_methods_say_in_which_order_things_happen() -> None:
    files = [*(ROOT / "gkdbench/methods").rglob("*.py"), *(ROOT / "gkdbench/training").glob("*.py")]
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    long = {path: source for path, source in sources.items() if source.count("\n") > LONG}
    assert len(long) > 10
    assert sorted(path.name for path, source in long.items() if len(order_sentence(source).split()) < 10) == []


def test_a_missing_sentence_is_found() -> None:
    assert order_sentence('"""A method."""') == order_sentence("x = 1") == ""
    assert order_sentence('"""A method.\n\nOrder: build, then\ntrain.\n"""') == "Order: build, then\ntrain."
