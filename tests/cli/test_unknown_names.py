"""A name that is not registered: the nearest ones, and apart from them what helps further."""

from __future__ import annotations

import pytest

from gkdbench.errors import UnknownName
from gkdbench.execute.suite import load_suite
from gkdbench.training.registry import METHODS


def test_the_hint_is_set_apart_from_the_names() -> None:
    assert str(UnknownName("suite", "x", ["b", "a"], "hint")) == "unknown suite 'x'; known: a, b (hint)"
    assert str(UnknownName("suite", "x", ["b", "a"])) == "unknown suite 'x'; known: a, b"


def test_methods_and_suites_say_where_to_look() -> None:
    with pytest.raises(UnknownName, match=r"'glnn'.*\? \(`gkdbench list methods` prints all\)$"):
        METHODS.get("glnnn")
    with pytest.raises(UnknownName, match=r" \(a path that ends in \.toml is read as a file\)$"):
        load_suite("qqqqqqq")
