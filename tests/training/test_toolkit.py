"""`gkdbench.training` is one list of names: all there, documented, typed, and loaded only when they are used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gkdbench.training as toolkit

HEAVY = ("torch", "pydantic", "gkdkernels")


def test_every_name_is_there_and_in_the_docstring() -> None:
    words = set((toolkit.__doc__ or "").replace(",", " ").replace(";", " ").split())
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None
        assert name in words, f"{name} is missing in the docstring of gkdbench.training"
    assert set(toolkit.__all__) <= set(dir(toolkit))


def test_functions_and_classes_say_what_they_are() -> None:
    found = {name: getattr(toolkit, name) for name in toolkit.__all__}
    bare = [name for name, value in found.items() if callable(value) and not inspect.getdoc(value)]
    assert bare == []


def test_importing_the_toolkit_imports_nothing_heavy() -> None:
    code = f"import sys, gkdbench.training; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train_studnet'"):
        toolkit.train_studnet  # noqa: B018 - the look-up is what is tested


def test_type_checkers_read_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(toolkit.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == toolkit._HOME
    assert sorted(toolkit._HOME) == sorted(toolkit.__all__)
