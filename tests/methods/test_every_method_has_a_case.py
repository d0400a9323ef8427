"""The registry decides: a method of this package without a `MethodCase` of its own fails here."""

import ast
from pathlib import Path

from gkdbench.training.registry import METHODS

TESTS = Path(__file__).parents[1]


def cases() -> dict[str, str]:
    """Method name -> test file, of every class in tests/ that inherits from MethodCase."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(b, ast.Name) and b.id == "MethodCase" for b in node.bases
            ):
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "name":
                        assert node.name.startswith("Test"), f"{path.name}: pytest does not collect {node.name}"
                        found[ast.literal_eval(line.value)] = path.name
    return found


def test_every_registered_method_has_its_case() -> None:
    own = [name for name, entry in METHODS.entries().items() if entry.owner.startswith("gkdbench (")]
    assert len(own) >= 8
    missing = sorted(set(own) - set(cases()))
    assert not missing, (
        f"no case for {', '.join(missing)}: write tests/methods/cases/test_method_<name>.py with "
        f"`class Test...(MethodCase): name = ...` (from gkdbench.testing import MethodCase)"
    )


def test_every_case_has_its_method() -> None:
    assert sorted(set(cases()) - set(METHODS.names())) == []
