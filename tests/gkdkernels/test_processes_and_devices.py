"""Forked workers after compiled loops, and the GPU that a launch goes to."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import gkdkernels
import pytest
import torch
from gkdkernels import CSRGraph, explain, spmm
from gkdkernels.core import dispatch

SOURCES = Path(gkdkernels.__file__).resolve().parent
GRAPH = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2], [1, 1, 0]]), 3)
X = torch.tensor([[1.0], [5.0], [2.0]])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="the extra numba is not installed")


def in_a_fork(check: Callable[[], bool]) -> bool:
    """What `check` says in a forked process."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def refused() -> bool:
    try:
        spmm(GRAPH, X, reduce="max", backend="numba")
    except ValueError as error:
        return "not forked after compiled loops ran" in str(error) and "'spawn'" in str(error)
    return False


@needs_fork
@needs_numba
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_worker_leaves_the_compiled_loops_alone() -> None:
    wanted = spmm(GRAPH, X, reduce="max", backend="numba")
    assert explain("spmm max", X).backend == "numba"
    assert in_a_fork(lambda: explain("spmm max", X).backend == "cpu")
    assert in_a_fork(lambda: torch.equal(spmm(GRAPH, X, reduce="max"), wanted))
    assert in_a_fork(refused)
    assert explain("spmm max", X).backend == "numba"  # here nothing has changed


@needs_fork
@needs_numba
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_before_any_loop_may_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_threads", {"loops ran": False, "forked since": False})
    assert in_a_fork(lambda: explain("spmm max", X).backend == "numba")


def unguarded(source: str) -> list[int]:
    """Lines of launches ``kernel[grid](...)`` outside of ``with on_device(...)``."""
    tree = ast.parse(source)
    found: list[int] = []
    kernels = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list)
    }

    def visit(node: ast.AST, guarded: bool) -> None:
        if isinstance(node, ast.With):
            guarded |= any("on_device" in ast.unparse(item.context_expr) for item in node.items)
        launched = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript) else None
        if isinstance(launched, ast.Name) and launched.id in kernels and not guarded:
            found.append(launched.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child, guarded)

    visit(tree, False)
    return found


LAUNCHING = sorted(path for path in SOURCES.rglob("*triton.py") if "@triton.jit" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", LAUNCHING, ids=lambda path: str(path.relative_to(SOURCES)))
def test_every_launch_goes_to_the_device_of_its_tensors(path: Path) -> None:
    assert unguarded(path.read_text("utf-8")) == []


def test_a_launch_without_a_guard_is_found() -> None:
    """Positive control."""
    source = (SOURCES / "spmm" / "triton.py").read_text("utf-8")
    assert len(unguarded(source.replace("with on_device(x):", "if True:"))) == source.count("[(chunks +") + 2
    assert LAUNCHING
