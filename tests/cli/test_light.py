"""Help and lists answer at once: they import no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.command import gkdbench

HELP_CPU_S = 0.45


def test_help_takes_little() -> None:
    best = min(gkdbench("--help").cpu_s for _ in range(3))
    assert best <= HELP_CPU_S


@pytest.mark.parametrize("words", ["--help", "run --help", "list --help"])
def test_help_says_what_there_is(words: str) -> None:
    done = gkdbench(*words.split())
    assert done.code == 0
    assert done.out.startswith("usage: gkdbench")


HEAVY = ("torch", "scipy", "sklearn", "pandas", "triton", "gkdkernels")
LIGHT = ["methods", "datasets", "splits", "backbones", "suites"]


@pytest.mark.parametrize("words", [["--help"], *(["list", what] for what in LIGHT), ["data", "list"]], ids=" ".join)
def test_lists_import_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from gkdbench.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, gkdbench, gkdbench.methods; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
