"""The examples in the docstrings of the toolkit run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

import gkdbench.training as toolkit

SHOWN = (
    "adam",
    "batches",
    "build",
    "kl_to_teacher",
    "supervised",
    "train",
    "train_peers",
    "train_solo",
    "train_student",
)


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_prints_what_it_shows(name: str) -> None:
    found = getattr(toolkit, name)
    scene = vars(importlib.import_module(found.__module__)).copy()
    (test,) = doctest.DocTestFinder(recurse=False).find(found, name, globs=scene)
    assert test.examples, f"{name} has no example"
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert result.failed == 0, "".join(printed)


def test_no_example_is_left_out() -> None:
    having = {
        name for name in toolkit.__all__ if name.islower() and ">>>" in (inspect.getdoc(getattr(toolkit, name)) or "")
    }
    assert having == set(SHOWN)
