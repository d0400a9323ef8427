"""Keys of configuration files that were renamed: the old ones are read for one release, with a warning."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from gkdbench.training import resolve as resolving

OLD = """
{fitting} = "paper_{{setting}}_{{teacher}}"

[recipe.paper_tran_sage.cora]
lr = 0.5

[{fitted}.cpf]
epochs = 7
"""
METHOD = """
from dataclasses import dataclass
from typing import ClassVar

from gkdbench.training.fields import DistilledStudent


@dataclass(frozen=True, kw_only=True)
class Old(DistilledStudent):
    name: ClassVar[str] = "old"
    paper: ClassVar[str] = "none"

    def fit(self, view, ctx):
        raise NotImplementedError
"""


def resolved(folder: Path, fitting: str, fitted: str, monkeypatch: pytest.MonkeyPatch) -> tuple[float, int]:
    """lr and epochs of a method of a package in `folder` whose configuration has these keys."""
    from gkdbench.registry import Entry
    from gkdbench.training.registry import METHODS

    package = folder / f"package_{fitting}"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "old.py").write_text(METHOD)
    (package / "configs" / "old.toml").write_text(OLD.format(fitting=fitting, fitted=fitted))
    monkeypatch.syspath_prepend(folder)
    METHODS.names()
    monkeypatch.setitem(METHODS._entries, "old", Entry("old", f"{package.name}.old:Old", "tests"))  # type: ignore[arg-type]
    try:
        method = resolving.resolve("old", dataset="cora", split="cpf-lcc-20-30")
    finally:
        METHODS._loaded.pop("old", None)
        sys.modules.pop(f"{package.name}.old", None)
    return method.lr, method.epochs  # type: ignore[attr-defined]


def test_old_keys_mean_the_same_and_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = resolved(tmp_path, "default_recipe", "default_recipe_overrides", monkeypatch)
    with pytest.warns(DeprecationWarning, match="'fitting' is called 'default_recipe' now"):
        old = resolved(tmp_path, "fitting", "fitted", monkeypatch)
    assert new == old == (0.5, 7)


def test_no_file_of_this_package_has_an_old_key() -> None:
    from support.checkout import ROOT

    for path in (ROOT / "gkdbench" / "methods").rglob("*.toml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line.startswith(("fitting =", "[fitted"))] == [], path.name
