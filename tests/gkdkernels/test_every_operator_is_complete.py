"""Every operator that is declared has all that CONTRIBUTING asks for: it fails by the name of what is missing."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import gkdkernels
import pytest
import torch
from gkdkernels.core import cost, dispatch
from mutations import FAULTS

from gkdbench.measure.operators.cases import all_cases, quick_cases

HERE, SOURCES = Path(__file__).resolve().parent, Path(gkdkernels.__file__).resolve().parent
COMPOSED = {
    "spmm": ("sum_reference", "max_reference"),
    "route_by_memory": ("select_reference",),
    "rbm_layer": ("select_reference", "expert_linear_reference"),
    "structure_kl": ("edge_log_probs_reference",),
    "segment_mean": ("segment_sum_reference",),
}
"""Operators whose formula is in other functions of their folder's reference.py than ``<operator>_reference``."""


@cache
def defined(path: Path) -> frozenset[str]:
    """Names of the functions that a file defines; none where there is no file."""
    tree = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@cache
def used_by_tests() -> frozenset[str]:
    """Names that the tests of this folder read, this file left out; an import alone is no use."""
    found: set[str] = set()
    for path in HERE.glob("test_*.py"):
        if path != Path(__file__).resolve():
            names = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)]
            found.update(node.id for node in names if isinstance(node.ctx, ast.Load))
    return frozenset(found)


@cache
def benched() -> frozenset[str]:
    """Operators that the bench has cases of, in both of its tables."""
    quick, full = (
        {f"segment_{case.option}" if case.operator == "readout" else case.operator for case in table}
        for table in (quick_cases(), all_cases(torch.device("cpu")))
    )
    return frozenset(quick & full)


def missing(declared: str) -> list[str]:
    """What the operator `declared` lacks. "spmm max" is the maximum of spmm: a table of backends, no other operator."""
    name = declared.split()[0]
    module = dispatch._OWNERS[declared].partition(",")[0].split(".")
    folder = module[1] if module[0] == "gkdkernels" else "(no folder of gkdkernels)"
    wanted = COMPOSED.get(name, (f"{name}_reference",))
    costs = [function for function in (f"{name}_cost", f"{folder}_cost") if callable(getattr(cost, function, None))]
    complete = {
        f"an export: {name} in gkdkernels.__all__": name in gkdkernels.__all__,
        "the backend 'reference'": "reference" in dispatch._OPERATORS[declared],
        f"a reference: {' and '.join(wanted)} in {folder}/reference.py": defined(SOURCES / folder / "reference.py")
        >= set(wanted),
        f"a cost: {name}_cost in gkdkernels/core/cost.py": bool(costs),
        "a case of the bench, quick and full: gkdbench/measure/operators/cases.py": name in benched(),
        f"a test that calls it: tests/gkdkernels/test_{name}.py": name in used_by_tests(),
        f"a planted fault: one of mutations.FAULTS whose name begins with {name}": any(
            fault.name.replace(":", " ").split()[0] == name for fault in FAULTS
        ),
    }
    return [what for what, there in complete.items() if not there]


@pytest.mark.parametrize("operator", sorted(dispatch._OPERATORS))
def test_nothing_is_missing(operator: str) -> None:
    assert missing(operator) == []


def test_the_operators_are_those_that_are_exported() -> None:
    names = {operator.split()[0] for operator in dispatch._OPERATORS}
    assert {"spmm", "gat_aggregate", "mutual_kl", "soft_kl", "structure_kl", "expert_linear"} <= names
    assert set(COMPOSED) <= names


def test_an_operator_with_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_OPERATORS", "_OWNERS", "_SAME_BITS"):
        monkeypatch.setattr(dispatch, table, dict(getattr(dispatch, table)))
    dispatch.declare("lonely", "cpu")
    found = missing("lonely")
    assert [what.split(":")[0] for what in found] == [
        "an export",
        "the backend 'reference'",
        "a reference",
        "a cost",
        "a case of the bench, quick and full",
        "a test that calls it",
        "a planted fault",
    ]
    assert "a cost: lonely_cost in gkdkernels/core/cost.py" in found
