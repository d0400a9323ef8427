"""What runs on a device is named ``<operator>_{fwd,bwd}_<part>``: a profiler's trace shows the operator and direction.

``fwd`` and ``bwd`` are the pass that a kernel was written for; where the other launches it too, a comment says so.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import gkdkernels
import pytest
from gkdkernels.core import dispatch

ROOT = Path(gkdkernels.__file__).parent
_NAME = re.compile(r"([a-z_]+?)_(?:fwd|bwd)_[a-z][a-z_]*")


def launched(source: str) -> set[str]:
    """The names of ``name[grid](...)`` and of functions that are compiled as loops for numba."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    found = {f.value.id for f in calls if isinstance(f, ast.Subscript) and isinstance(f.value, ast.Name)}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return found | {f.name for f in functions if any(ast.unparse(d).startswith("loops(") for d in f.decorator_list)}


def operators_of(folder: str) -> set[str]:
    """The folder's name and the operators that are declared in it."""
    return {folder} | {name for name, owner in dispatch._OWNERS.items() if owner.startswith(f"gkdkernels.{folder}.")}


def wrong(names: set[str], operators: set[str]) -> list[str]:
    """Those that do not begin with one of `operators` and a direction."""
    matches = {name: _NAME.fullmatch(name) for name in names}
    return sorted(name for name, match in matches.items() if match is None or match[1] not in operators)


FILES = sorted(
    path for backend in ("triton", "numba") for path in ROOT.rglob(f"*{backend}*.py") if path.parent.name != "core"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_kernels_are_named_after_operator_and_direction(path: Path) -> None:
    names = launched(path.read_text(encoding="utf-8"))
    assert names, "no launch found: is this a file of kernels?"
    assert wrong(names, operators_of(path.parent.name)) == []


def test_no_two_kernels_share_a_name_and_core_launches_none() -> None:
    triton = [path for path in FILES if "triton" in path.name]
    assert len(triton) == 8
    shared = Counter(name for path in triton for name in launched(path.read_text(encoding="utf-8")))
    assert [name for name, count in shared.items() if count > 1] == []
    assert {name for path in (ROOT / "core").glob("*triton*.py") for name in launched(path.read_text("utf-8"))} == set()


def test_another_name_is_found() -> None:
    source = "attend[(1,)](x)\nspmm_fwd_row_sum[grid](x)\n@loops()\ndef rows(x): ...\n@part()\ndef helper(x): ..."
    assert launched(source) == {"attend", "spmm_fwd_row_sum", "rows"}
    assert wrong({"attend", "spmm_fwd_row_sum", "spmm_row", "gat_fwd_attend", "spmm_bwd_"}, {"spmm"}) == [
        "attend",
        "gat_fwd_attend",
        "spmm_bwd_",
        "spmm_row",
    ]
