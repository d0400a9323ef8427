"""`pip install ./kernels` gives gkdkernels without the rest, beside gkdbench or not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkout import ROOT

SOURCES = ROOT / "kernels" / "gkdkernels"
NEEDED = {"torch", "triton", "numpy"}
CODE = """
import json, torch
from gkdkernels import CSRGraph, spmm, nn
graph = CSRGraph.from_edge_index(torch.tensor([[1, 2], [0, 0]]), 3)
print(json.dumps(spmm(graph, torch.tensor([[1.0], [2.0], [5.0]])).flatten().tolist()))
"""


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def package(requirement: str) -> str:
    return requirement.partition(">")[0]


def test_it_asks_for_three_packages_as_gkdbench_does() -> None:
    alone, whole = project(ROOT / "kernels"), project(ROOT)
    assert {package(one) for one in alone["dependencies"]} == NEEDED
    assert set(alone["dependencies"]) <= set(whole["dependencies"])
    extras = alone["optional-dependencies"]
    assert extras == {name: whole["optional-dependencies"][name] for name in extras}
    assert [alone[key] for key in ("version", "requires-python", "license")] == [
        whole[key] for key in ("version", "requires-python", "license")
    ]
    assert (ROOT / "kernels" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Packages that a module imports when it is imported: not in a function, nor for a type checker."""
    blocks: list[list[ast.stmt]] = [tree.body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").split(".")[0]
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                blocks.append(node.orelse)
            else:
                blocks += [getattr(node, part) for part in ("body", "orelse") if not isinstance(node, ast.FunctionDef)
                           and isinstance(getattr(node, part, None), list)]  # fmt: skip


def test_no_module_needs_more() -> None:
    probe = "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nfinally:\n    pass\ndef f():\n    import d"
    assert set(imported_at_once(ast.parse(probe))) == {"a", "c"}
    extra = {}
    for path in SOURCES.rglob("*.py"):
        optional = ["numba", "llvmlite"] if "numba" in path.name else []  # files of that backend, imported when it runs
        known = {*sys.stdlib_module_names, *NEEDED, "gkdkernels", *optional}
        if more := set(imported_at_once(ast.parse(path.read_text("utf-8")))) - known:
            extra[path.relative_to(SOURCES).as_posix()] = more
    assert extra == {}


@pytest.mark.full
@pytest.mark.parametrize("order", [("kernels",), ("kernels", "."), (".", "kernels")], ids="-".join)
def test_installed_alone_before_and_after_gkdbench(order: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building the wheel wants hatchling, of the test extra")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    own = json.loads(run(sys.executable, "-c", "import json, torch; print(json.dumps(torch.__path__[0]))"))
    (site / "others.pth").write_text(str(Path(own).parent), encoding="utf-8")  # torch and the like, read only
    for folder in order:
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
        run(*pip, "--no-build-isolation", "--ignore-installed", "-q", str(ROOT / folder))
        assert json.loads(run(str(python), "-c", CODE, cwd=tmp_path)) == [7.0, 0.0, 0.0]
    assert (site / "gkdbench").is_dir() == ("." in order)
    where = run(str(python), "-c", "import gkdkernels; print(gkdkernels.__file__)", cwd=tmp_path)
    assert where.startswith(str(site))
    if "." in order:
        code = "import gkdbench.cli, gkdkernels; print(gkdbench.__file__)"
        assert run(str(python), "-c", code, cwd=tmp_path).startswith(str(site))


def run(*command: str, cwd: Path | None = None) -> str:
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(cwd or ROOT)}
    done = subprocess.run(command, cwd=cwd, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
