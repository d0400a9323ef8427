"""A stranger's package: scaffolded, put on the path with its metadata, found, listed, tested, run by workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.document_blocks import ROOT, environment

SUITE = """
[suite]
seeds = "0:1"

[[grid]]
datasets = ["csbm:n=300"]
splits = ["builtin-random"]

[[grid.methods]]
method = "borrowed_mlp"
epochs = 6
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def env(home: Path) -> dict[str, str]:
    """The scaffolded package, known as an installer leaves it: files on the path, entry points in its metadata."""
    env = environment(ROOT, home / "cache")
    gkdbench("new", "method", "borrowed_mlp", "--into", "mine", cwd=home, env=env)
    project = tomllib.loads((home / "mine" / "pyproject.toml").read_text())["project"]
    info = home / "mine" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    ((group, points),) = project["entry-points"].items()
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return env | {"PYTHONPATH": os.pathsep.join([str(home / "mine"), env["PYTHONPATH"]])}


def gkdbench(*words: str, cwd: Path, env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "gkdbench.cli", *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_with_its_owner(home: Path, env: dict[str, str]) -> None:
    rows = {row["method"]: row for row in json.loads(gkdbench("list", "methods", "--json", cwd=home, env=env))}
    assert rows["borrowed_mlp"]["owner"] == "gkdbench-borrowed-mlp"
    assert rows["borrowed_mlp"]["what"].startswith("``w CE")


def test_workers_run_it(home: Path, env: dict[str, str]) -> None:
    (home / "mine.toml").write_text(SUITE)
    told = json.loads(gkdbench("run", "mine.toml", "--jobs", "2", "--json", cwd=home, env=env))
    assert (told["ok"], told["failed"]) == (2, [])  # the method, and the teacher that it wants
    records = [json.loads((home / path).read_text()) for path in told["records"]]
    (mine,) = [record for record in records if record["method"] == "borrowed_mlp"]
    assert mine["config"]["model"]["hidden"] == 128  # the settings that lie beside it were read


def test_its_own_test_passes(home: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine/tests"]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_a_second_package_of_that_name_is_refused(home: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "gkdbench.cli", "new", "method", "borrowed_mlp", "--into", "other"]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        "'borrowed_mlp' already, gkdbench_borrowed_mlp.borrowed_mlp:BorrowedMlp of gkdbench-borrowed-mlp" in done.stderr
    )
    assert not (home / "other").exists()
