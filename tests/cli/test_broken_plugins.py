"""A package of others that is broken is a line of the doctor, and nobody else's trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support.command import Done

from gkdbench.data.datasets import DATASETS
from gkdbench.execute.smoke import smoke_suite
from gkdbench.metrics import METRICS
from gkdbench.nn.backbones import BACKBONES
from gkdbench.registry import Entry, Registry
from gkdbench.training.registry import METHODS
from gkdbench.verbs.doctor import findings

Inside = Callable[..., Done]

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar
from gkdbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class NoEpochs(Method):
    """None."""
    name: ClassVar[str] = "odd"
    paper: ClassVar[str] = "none"
    def fit(self, view, ctx): raise NotImplementedError

NAME = "odd"

class NoMethod:
    name = "odd"
'''
BROKEN = [
    "nothing_of_that_name:Y", "odd_module:NoMethod", "odd_module:Absent", "odd_raises:Y", "odd_syntax:Y", "odd_exits:Y",
    "odd_exits.below:Y",
]  # fmt: skip


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Registry, str], None]]:
    """registered(registry, target): an entry "odd" of another package, for one test."""
    (tmp_path / "odd_module.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "odd_raises.py").write_text("raise RuntimeError('no licence')\n", encoding="utf-8")
    (tmp_path / "odd_syntax.py").write_text("class Y(:\n", encoding="utf-8")
    (tmp_path / "odd_exits").mkdir()
    (tmp_path / "odd_exits" / "__init__.py").write_text("raise SystemExit(7)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    def register(registry: Registry, target: str) -> None:
        registry.entries()
        monkeypatch.setattr(registry, "_entries", {**registry._entries, "odd": Entry("odd", target, "odd-package")})
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))

    yield register
    import sys

    for name in ("odd_module", "odd_raises", "odd_syntax", "odd_exits"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("target", BROKEN)
@pytest.mark.parametrize("registry", [METHODS, BACKBONES, DATASETS, METRICS], ids=lambda r: r.kind)
def test_the_doctor_says_it_in_one_line(registered, registry: Registry, target: str) -> None:
    if registry is DATASETS and target.endswith(":NoMethod"):
        target = "odd_module:NAME"  # any callable may load a data set, a text may not
    registered(registry, target)
    (found,) = [finding for finding in findings() if finding.what == "plugins"]
    assert found.status == "warn"
    assert f"{registry.kind} odd" in found.found


@pytest.mark.parametrize("target", BROKEN)
def test_the_others_go_on(registered, inside: Inside, target: str) -> None:
    registered(METHODS, target)
    names = {entry.method for grid in smoke_suite().grids for entry in grid.methods}
    assert "mlp" in names and "odd" not in names
    for words in (["list", "methods"], ["list", "recipes"], ["show", "mlp"], ["plan", "smoke", "--only", "method=mlp"]):
        done = inside(*words)
        assert done.code == 0, done.err
        assert done.out.count("odd-package") == (words == ["list", "methods"]), "one line of the list, none elsewhere"


def test_asked_for_by_name_it_is_refused_in_words(registered, inside: Inside) -> None:
    registered(METHODS, BROKEN[0])
    done = inside("show", "odd")
    assert done.code == 2
    assert "odd-package cannot be imported" in done.err


def test_a_method_without_epochs_is_part_of_smoke(registered, inside: Inside) -> None:
    registered(METHODS, "odd_module:NoEpochs")
    (entry,) = [entry for grid in smoke_suite().grids for entry in grid.methods if entry.method == "odd"]
    assert "epochs" not in entry.overrides
    done = inside("plan", "smoke", "--only", "method=mlp")
    assert done.code == 0, done.err


def test_without_the_guard_of_imports_one_package_ends_every_plan(
    registered, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control."""
    registered(METHODS, "odd_raises:Y")
    monkeypatch.setattr(Entry, "load", lambda entry: import_module(entry.target.partition(":")[0]).Y)
    with pytest.raises(RuntimeError, match="no licence"):
        inside("plan", "smoke", "--only", "method=mlp")
