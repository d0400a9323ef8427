"""Methods declare that they are controls; the report knows none by name, so that another package's counts as well."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import gkdbench.report
from gkdbench.controls import CONTROLS
from gkdbench.errors import UserError
from gkdbench.methods import Method
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.registry import Entry
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve


@dataclass(frozen=True, kw_only=True)
class Shuffled(Method):
    """A control of another package."""

    name: ClassVar[str] = "shuffled_teacher"
    control: ClassVar[Any] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"shuffle": ("all", "labelled")}

    shuffle: str = "all"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        raise NotImplementedError


class Unknown(Shuffled):
    control = "placebo"


class Unnamed(Shuffled):
    control = ""


class Misspelt(Shuffled):
    control_when = {"shufle": ("all",)}  # noqa: RUF012 - a wrong declaration, as an author may write it


OFF: Mapping[str, Mapping[str, Any]] = {
    "kd": {"alpha": 0.0},
    "dml": {"lam": 0.0},
    "lsp": {"lam": 0.0},
    "kdcl": {"lam": 0.0},
    "lower_ce": {"lam": 0.0},
    "one": {"lam": 0.0},
    "aekd": {"gamma": 0.0},
    "gnnsd": {"alpha": 0.0, "beta": 0.0},
    "at": {"alpha": 0.0, "beta": 0.0},
    "fitnet": {"alpha": 0.0, "beta": 0.0},
    "gcrd": {"alpha": 0.0, "beta": 0.0},
    "gsp": {"alpha": 0.0, "beta": 0.0},
}
"""Method -> its settings without transfer: the loop that stands beside it as a control."""
Register = Callable[[type[Method]], str]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Enters a class as an installed package's entry point would."""

    def enter(kind: type[Method]) -> str:
        module = ModuleType("stranger_methods")
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, "stranger_methods", module)
        monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
        monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))
        METHODS.add(Entry(kind.name, f"stranger_methods:{kind.__name__}", "stranger"))
        return kind.name

    return enter


def test_another_package_s_control_is_one_at_the_settings_that_it_names(register: Register) -> None:
    name = register(Shuffled)
    kinds = {shuffle: resolve(name, {"shuffle": shuffle}).control_kind for shuffle in ("all", "labelled", "none")}
    assert kinds == {"all": "no_transfer", "labelled": "no_transfer", "none": None}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Unknown, r"control kind 'placebo' of method 'shuffled_teacher': expected one of matched_size, several_models"),
        (Unnamed, r"'shuffled_teacher' has `control_when` and no kind of control: expected `control` to be one of"),
        (Misspelt, r"unknown field in control_when of method 'shuffled_teacher' 'shufle'; did you mean 'shuffle'"),
    ],
)
def test_a_wrong_declaration_is_named(register: Register, kind: type[Method], words: str) -> None:
    name = register(kind)
    with pytest.raises(UserError, match=words):
        resolve(name)


def test_every_kind_has_a_method_and_each_declares_what_it_is() -> None:
    declared = {name: METHODS.get(name).control for name in METHODS.names() if METHODS.get(name).control}
    assert set(declared.values()) == set(CONTROLS)
    off = [*OFF.items(), ("alignahead", {"direction": "none"})]
    off += [("rbm", {"model": {"routing": rule}}) for rule in ("random", "random_each", "frozen")]
    assert all(resolve(name, fields).control_kind == declared[name] for name, fields in off)
    assert all(resolve(name).control_kind is None for name, _ in off)
    always = set(declared) - {name for name, _ in off}
    assert always == {"mlp_params", "mlp_macs", "ensemble", "label_smoothing", "confidence_penalty"}
    assert all(resolve(name).control_kind == declared[name] for name in always)


def test_the_report_knows_no_method_by_name() -> None:
    # Words of the report that are names of methods too: an aggregate, and the role of a teacher.
    own, found = {"ensemble", "teacher"}, set()
    for file in Path(gkdbench.report.__file__).parent.rglob("*.py"):
        words = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
        found |= {(file.name, word) for word in words if isinstance(word, str) and word in {*METHODS.names()} - own}
    assert not found
