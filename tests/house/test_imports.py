"""Who may import whom: the contract of pyproject.toml, and what it cannot say."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkout import ROOT

PACKAGE = ROOT / "gkdbench"


def test_the_contract_is_kept() -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


def test_every_package_has_a_place_in_the_contract() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    free = {"cli", "verbs", "testing", "errors", "__init__"}  # may import all, or are open to all
    parts = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}
    parts = {name for name in parts if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
    sources = "".join(line for line in text.splitlines() if line.startswith("source_modules"))
    assert {name for name in parts - free - {"__pycache__"} if f'"gkdbench.{name}"' not in sources} == set()


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


METHODS = sorted(
    path
    for path in (PACKAGE / "methods").rglob("*.py")
    if not any(part.startswith("_") for part in path.relative_to(PACKAGE).parts)
)


def module_of(path: Path) -> str:
    return ".".join(("gkdbench", *path.relative_to(PACKAGE).with_suffix("").parts))


def test_every_family_is_looked_at() -> None:
    assert {path.parent.name for path in METHODS} == {
        "baselines",
        "gnn_to_mlp",
        "graph_tasks",
        "mixture",
        "mutual",
        "structure",
    }
    assert len(METHODS) > 40


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_methods_do_not_import_each_other(path: Path) -> None:
    others = {module_of(other) for other in METHODS if other != path}
    shared = "shared steps live in the family's _*.py, or in gkdbench.training"
    assert others & set(imported(path)) == set(), shared


def test_data_takes_only_graph_types_from_the_kernels() -> None:
    found = {name for path in (PACKAGE / "data").rglob("*.py") for name in imported(path)}
    modules = {name for name in found if name.split(".")[0] == "gkdkernels"}
    assert all(name.startswith("gkdkernels.graph") for name in modules), sorted(modules)


def test_test_helpers_stay_out_of_the_package() -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if "testing" not in path.parts]
    names = {"pytest", "hypothesis", "gkdbench.testing"}
    assert {path.name: names & set(imported(path)) for path in outside if names & set(imported(path))} == {}
