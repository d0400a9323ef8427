"""Files stay short, and the package is what its metadata say."""

from __future__ import annotations

import statistics
import subprocess
import tomllib
from collections import Counter

import pytest
from support.checkout import ROOT

import gkdbench


def sources() -> dict[str, int]:
    """Lines per source file of the two packages."""
    files = [*(ROOT / "gkdbench").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    return {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}


def test_files_are_short() -> None:
    lengths = sources()
    assert {name: count for name, count in lengths.items() if count > 600} == {}
    assert statistics.median(lengths.values()) <= 150


def test_a_method_is_read_in_one_sitting() -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "gkdbench/methods").rglob("[a-z]*.py")
    }
    assert len(lengths) > 40
    assert {name: count for name, count in lengths.items() if count > 250} == {}


def test_no_folder_holds_more_files_than_one_can_read_through() -> None:
    files = [ROOT / name for name in sources()]
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    del counts["gkdbench/report"]  # it keeps its layout
    assert {folder: count for folder, count in counts.items() if count > 30} == {}


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == gkdbench.__version__
    assert f"version: {gkdbench.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{gkdbench.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_what_the_project_allows() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert {"torch==2.13.0", "triton==3.7.1"} <= set(pins)


def test_no_test_file_hides_another() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_whole_and_executable(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_make_knows_its_targets() -> None:
    for target in ("run", "test", "test-full", "check"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
