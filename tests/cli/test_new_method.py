"""The scaffold: valid names, nothing written over, files that say what they are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gkdbench.errors import UserError
from gkdbench.verbs import scaffold


@pytest.mark.parametrize(
    "name", ["Soft", "soft-mlp", "2soft", "_soft", "soft_", "so__ft", "class", "", "s" * 41, "a.b"]
)
def test_a_bad_name_is_refused_with_what_is_wanted(name: str) -> None:
    with pytest.raises(UserError, match=r"expected lower case.*such as soft_mlp, got"):
        scaffold.checked_name(name)


def test_a_taken_name_is_refused_with_its_owner() -> None:
    with pytest.raises(UserError, match=r"'kd' already, gkdbench\.methods\.baselines\.kd:KD of gkdbench"):
        scaffold.checked_name("kd")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("soft_mlp", "SoftMlp"), ("mlp2", "Mlp2"), ("transfer", "TransferMethod"), ("method_case", "MethodCaseMethod")],
)
def test_class_names_do_not_hide_what_the_file_imports(name: str, expected: str) -> None:
    assert scaffold.class_name(name) == expected
    source = scaffold.in_checkout(name, Path("root"))[Path("root/gkdbench/methods/gnn_to_mlp", f"{name}.py")]
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes] == [expected]
    assert scaffold.NAME not in source and scaffold.CLASS not in source.replace(expected, "")


def test_nothing_is_written_over_and_nothing_is_half_written(tmp_path: Path) -> None:
    files = scaffold.in_package("soft_mlp", tmp_path)
    taken = tmp_path / "pyproject.toml"
    taken.write_text("mine")
    with pytest.raises(UserError, match=r"pyproject\.toml exists already"):
        scaffold.write(files)
    assert [path.name for path in tmp_path.rglob("*")] == ["pyproject.toml"]
    assert taken.read_text() == "mine"


def test_a_folder_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*choose a folder"):
        scaffold.write({tmp_path / "file" / "x.py": ""})


def test_an_installed_package_points_to_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaffold, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(UserError, match="--into FOLDER"):
        scaffold.checkout()


@pytest.mark.parametrize("name", ["soft_mlp", "a", "l" * scaffold.LONGEST])
def test_what_is_written_keeps_the_house_style(name: str, tmp_path: Path) -> None:
    scaffold.write(scaffold.in_package(name, tmp_path))
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(Path(__file__).parents[2] / "pyproject.toml"), "--no-cache", str(tmp_path)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, *config], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
