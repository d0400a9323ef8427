"""The scaffold: valid names, nothing written over, files that say what they are."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from gkdbench.cli import main
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
    files = scaffold.in_package("soft_mlp", tmp_path, "mine")
    taken = tmp_path / "tests" / "test_method_soft_mlp.py"
    taken.parent.mkdir()
    taken.write_text("mine")
    with pytest.raises(UserError, match=r"test_method_soft_mlp\.py exists already"):
        scaffold.write_package(tmp_path, "mine", "method", "soft_mlp", "SoftMlp", files)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [taken.name]
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
    assert main(["new", "method", name, "--into", str(tmp_path)]) == 0
    assert main(["new", "dataset", f"{name[:20]}_ring", "--into", str(tmp_path)]) == 0  # into the package that is there
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(Path(__file__).parents[2] / "pyproject.toml"), "--no-cache", str(tmp_path)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, *config], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_a_data_set_and_a_method_share_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["dataset", "ring_of_mine"], ["method", "one_of_mine"], ["dataset", "second_ring"]):
        assert main(["new", *words, "--into", str(tmp_path)]) == 0
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {
        "gkdbench.datasets": {
            "second_ring": "gkdbench_ring_of_mine.second_ring:second_ring",
            "ring_of_mine": "gkdbench_ring_of_mine.ring_of_mine:ring_of_mine",
        },
        "gkdbench.methods": {"one_of_mine": "gkdbench_ring_of_mine.one_of_mine:OneOfMine"},
    }
    monkeypatch.syspath_prepend(tmp_path)
    made = import_module("gkdbench_ring_of_mine.ring_of_mine").ring_of_mine()
    assert (made.num_nodes, made.num_classes) == (300, 3)


def test_a_package_of_another_form_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "x"\n')
    assert main(["new", "dataset", "ring", "--into", str(tmp_path)]) == 2
    assert "expected one package" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
