"""Module paths of version 0.1: they import for one release, warn, and are the modules that the package uses."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import ROOT

from gkdbench.moved import MOVED

BEFORE = """
from gkdbench.methods._base import Method, Requirement
from gkdbench.methods._loop import train
from gkdbench.methods._losses import kl_to_teacher, supervised
from gkdbench.methods._models import as_predictor, build
from gkdbench.methods._settings import Count, Rate, Share, Taught, Weight
from gkdbench.methods._solo import SoloRecipe, item_forward
from gkdbench.methods._steps import adam, batches, descend, mean_loss
from gkdbench.protocol.scenes import stage
"""
"""What the scaffold and CONTRIBUTING of version 0.1 told authors of methods to import, and what checks of it did."""


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_leads_to_every_name_of_the_new_one(old: str) -> None:
    moved = MOVED[old]
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {moved.to} "):
        module = importlib.import_module(old)
    new = importlib.import_module(moved.to)
    for node in ast.parse(Path(str(new.__file__)).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert getattr(module, node.name) is getattr(new, node.name)
    for name, now in moved.names.items():
        home, _, attribute = now.rpartition(":")
        assert getattr(module, name) is getattr(importlib.import_module(home or moved.to), attribute)
    assert set(moved.names) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_setting_a_name_there_changes_the_module_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from gkdbench.training import steps

    before = steps.mean_loss
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("gkdbench.methods._steps", None)
        old = importlib.import_module("gkdbench.methods._steps")
    with monkeypatch.context() as patch:
        patch.setattr(old, "mean_loss", lambda losses: -1.0)
        assert steps.mean_loss([1.0]) == -1.0
    assert steps.mean_loss is before


def test_no_old_path_exists_as_a_file_and_every_new_one_does() -> None:
    for old, moved in MOVED.items():
        folder = ROOT / Path(*old.split("."))
        assert not folder.with_suffix(".py").exists() and not (folder / "__init__.py").exists()
        assert (ROOT / Path(*moved.to.split("."))).with_suffix(".py").exists()


def test_what_authors_were_told_to_import_still_imports(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(BEFORE + "print(Taught.__name__, Rate, stage.__name__)\n")
    run = subprocess.run(
        [sys.executable, "-W", "always", str(tmp_path / "old.py")], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("DistilledStudent")
    assert "old.py:3: DeprecationWarning: gkdbench.methods._loop has moved to gkdbench.training.loop" in run.stderr


def test_a_path_that_never_was_is_still_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gkdbench.methods._never")
