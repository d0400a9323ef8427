"""Every trap of the protocol has a test, or says what it waits for; the tests that traps.toml names exist."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TRAPS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "traps.toml").read_text(encoding="utf-8"))


def test_all_34_are_listed() -> None:
    assert list(TRAPS) == [str(number) for number in range(1, 35)]


@pytest.mark.parametrize("number", TRAPS)
def test_a_trap_is_proven_neutralised_or_says_what_it_waits_for(number: str) -> None:
    trap = TRAPS[number]
    assert set(trap) <= {"trap", "tests", "waits"}
    assert trap["trap"]
    assert trap.get("tests") or trap.get("waits")
    for test in trap.get("tests", []):
        path, *names = test.split("::")
        scope: Any = ast.parse((HERE.parent / path).read_text(encoding="utf-8"))
        for name in names:
            found = [n for n in scope.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
            assert found, f"trap {number}: {test} does not exist"
            scope = found[0]
        assert isinstance(scope, ast.FunctionDef)
        assert scope.name.startswith("test_")
