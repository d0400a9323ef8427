"""A third-party package in a folder, found by its entry point; suites of its method."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.registry import Entry
from gkdbench.training.registry import METHODS

DATASET = "csbm:n=400"


def install(folder: Path) -> None:
    """Put module and metadata into `folder`; whoever has it on the path finds the entry point."""
    for name in ("toy_methods.py", "careless_acts.py", "more_acts.py", "faults.py"):
        shutil.copy(Path(__file__).parent / "plugin" / name, folder)
    info = folder / "toy_methods-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-methods\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[gkdbench.methods]\ntoy = toy_methods:Toy\n")


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """The package at `folder` known to this process and to the workers that it starts; forgotten afterwards."""
    known = "toy" in METHODS.names()  # contexts may be nested
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GKDBENCH_WORKER_COLD", "1")  # toys use no optimiser
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(folder)
        METHODS.add(Entry("toy", "toy_methods:Toy", "toy-methods"))
        yield
    if not known:
        assert METHODS._entries is not None
        del METHODS._entries["toy"]
        METHODS._loaded.pop("toy", None)


def modes_suite(*modes: str, seeds: str = "0:1", **head: object) -> Suite:
    """One toy per mode, each a configuration of its own."""
    methods = [{"method": "toy", "mode": mode} for mode in modes]
    grid = {"datasets": [DATASET], "splits": ["builtin-random"], "methods": methods}
    return parse_suite({"suite": {"name": "toys", "seeds": seeds, **head}, "grid": [grid]})


def taught_suite() -> Suite:
    """Two splits, two seeds, a toy and its student: 12 cells with the student's own teachers."""
    methods = [{"method": "toy"}, {"method": "toy", "taught": True}]
    grid = {"datasets": [DATASET], "splits": ["builtin-random", "builtin-random-ind20"], "methods": methods}
    return parse_suite({"suite": {"name": "toys", "seeds": "0:2"}, "grid": [grid]})
