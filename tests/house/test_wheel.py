"""The wheel: everything that is needed at run time, nothing else, and it runs from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.checkout import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="building the wheel wants hatchling, of the test extra")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q"]
    subprocess.run([*command, "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_has_all_modules_and_data_files(names: set[str]) -> None:
    patterns = ("*.py", "*.toml", "*.json", "*.css", "*.cpp", "py.typed")
    wanted = {
        path.relative_to(base).as_posix()
        for base in (ROOT, ROOT / "kernels")
        for pattern in patterns
        for path in (base / ("gkdbench" if base == ROOT else "gkdkernels")).rglob(pattern)
    }
    wanted |= {f"gkdbench/_suites/{path.name}" for path in (ROOT / "suites").glob("*.toml")}
    assert {"gkdbench/report/page.css", "gkdbench/data/catalogue.json", "gkdkernels/py.typed"} <= wanted
    assert wanted - names == set()


def test_it_has_nothing_else(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gkdbench", "gkdkernels"}
    assert [name for name in names if Path(name).name.startswith(("test_", "conftest", "bench_"))] == []
    assert [name for name in names if Path(name).suffix not in (".py", ".toml", ".json", ".css", ".cpp", ".typed")
            and ".dist-info/" not in name] == []  # fmt: skip


def test_it_runs_from_a_folder_of_its_own(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {name: value for name, value in os.environ.items() if name != "GKDBENCH_DATA"}
    environment |= {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def gkdbench(*words: str) -> str:
        command = [sys.executable, "-m", "gkdbench.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    suites = {row["suite"] for row in json.loads(gkdbench("list", "suites", "--json"))}
    assert suites == {"smoke", *(path.stem for path in (ROOT / "suites").glob("*.toml"))}
    told = json.loads(gkdbench("run", "smoke", "--only", "method=mlp,split=builtin-random", "--jobs", "1", "--json"))
    assert (told["ok"], told["failed"]) == (1, [])
    assert Path(told["html"]) == tmp_path / "gkdbench-runs" / "board.html"
    code = "import gkdbench, gkdkernels; print(gkdbench.__file__, gkdkernels.__file__)"
    where = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert all(path.startswith(str(site)) for path in where.stdout.split())
