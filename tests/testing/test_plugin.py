"""The pytest plugin in a package of another author, in processes of its own: with and without pytest-benchmark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.checkout import ROOT
from support.document_blocks import environment

HEAVY = ("torch", "numpy", "scipy", "gkdkernels", "gkdbench.nn", "gkdbench.methods", "gkdbench.training")
RATIOS = """
import pytest
from gkdbench.measure.ratios import Ratio

@pytest.mark.parametrize("case", ["a", "b"])
def test_it(gkd_ratio, case):
    gkd_ratio(Ratio(2.0, 1.9, 2.1, 9), "MLP 2x128")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other package, and the entry point as an installer leaves it (skipped by pytest where it is installed)."""
    folder = tmp_path_factory.mktemp("parts")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / "site" / "entry_points_of_the_checkout-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entry-points-of-the-checkout\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in project["entry-points"]["pytest11"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    for name in ("parts", "rounds"):
        shutil.copy(ROOT / f"tests/support/package/check_{name}.py", folder / f"test_{name}.py")
    (folder / "test_ratio.py").write_text(RATIOS)
    return folder


def run_pytest(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # pytest-benchmark is off in workers of pytest-xdist, and takes the variables of one that started us for its own
    env = {key: value for key, value in environment(ROOT, home / "cache").items() if "XDIST" not in key}
    env |= {"PYTHONPATH": os.pathsep.join([str(home / "site"), env["PYTHONPATH"]])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *words]
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, gkdbench.testing.plugin; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_run_that_uses_no_fixture_imports_nothing_heavy(home: Path) -> None:
    (home / "test_light.py").write_text(
        "import sys\n\ndef test_it(request):\n"
        "    assert request.config.pluginmanager.has_plugin('gkdbench')\n"
        f"    assert set({HEAVY!r}) & set(sys.modules) == set()\n"
    )
    done = run_pytest(home, "-p", "no:benchmark", "test_light.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_works_without_pytest_benchmark(home: Path) -> None:
    done = run_pytest(home, "-p", "no:benchmark", "test_parts.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_pytest_benchmark_gets_the_samples_and_their_percentiles(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark, of the test extra, is not installed")
    done = run_pytest(home, f"--benchmark-json={tmp_path / 'told.json'}", "test_rounds.py")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "told.json").read_text())["benchmarks"]}
    ours, theirs, plain = (
        rows[f"test_{name}"] for name in ("timed_by_gkdbench", "timed_by_pytest_benchmark", "left_alone")
    )
    assert (ours["group"], ours["stats"]["rounds"], ours["options"]["timer"]) == ("mine", 45, "SampleReplay")
    found = ours["extra_info"]["percentiles"]
    assert found["p90_s"] == max(ours["stats"]["data"]) and found["p99_s"] is None
    assert found["more_samples"] == {"p95": 45, "p99": 414}
    told = ours["extra_info"]["gkdbench"]
    assert set(told) == {"latency", "again"} and told["latency"]["ratio"]["n"] == 45
    assert theirs["extra_info"]["percentiles"]["more_samples"] == {"p90": 34, "p95": 80, "p99": 449}
    assert plain["extra_info"] == {}


def test_markers_are_registered(home: Path) -> None:
    told = run_pytest(home, "--markers").stdout
    assert all(f"@pytest.mark.{name}" in told for name in ("gkd_task(", "gkd_rounds(", "gkd_percentiles:"))


def test_ratios_are_written_and_compared(home: Path) -> None:
    made = run_pytest(home, "--gkd-save-ratios=ratios.json", "test_ratio.py")
    assert made.returncode == 0 and "gkdbench: 2 ratios written to ratios.json" in made.stdout
    content = json.loads((home / "ratios.json").read_text())
    entry = {"value": 2.0, "low": 1.9, "high": 2.1, "n": 9, "reference": "MLP 2x128"}
    assert content["ratios"] == {f"test_ratio.py::test_it[{case}]": entry for case in "ab"}
    same = run_pytest(home, "--gkd-ratios=ratios.json", "test_ratio.py")
    assert same.returncode == 0 and "2 of 2 ratios are where ratios.json has them" in same.stdout
    content["ratios"]["test_ratio.py::test_it[b]"] |= {"value": 1.0, "low": 0.9, "high": 1.1}
    (home / "faster.json").write_text(json.dumps(content))
    slower = run_pytest(home, "--gkd-ratios=faster.json", "test_ratio.py")
    assert slower.returncode == 1
    assert "test_it[b]: expected at most 1.00 [0.90, 1.10] n=9 of MLP 2x128 and 25% more, got 2.00" in slower.stdout
    assert "slower than committed: test_ratio.py::test_it[b]" in slower.stdout


def test_a_wrong_file_or_marker_is_a_sentence(home: Path) -> None:
    absent = run_pytest(home, "--gkd-ratios=absent.json", "test_ratio.py")
    assert absent.returncode == 4
    assert "absent.json: expected a file of committed ratios, got none; try --gkd-save-ratios" in absent.stderr
    (home / "test_marker.py").write_text("import pytest\n\n@pytest.mark.gkd_task('cora')\ndef test_it(gkd_task): ...\n")
    wrong = run_pytest(home, "test_marker.py")
    assert wrong.returncode == 1
    assert "gkd_task: expected one of tran, ind, graph, multilabel, got 'cora'" in wrong.stdout


@pytest.mark.parametrize(("folder", "files"), [("suites", {"bench_"}), ("tests/testing", {"test_"})])
def test_benches_are_collected_from_their_folder_alone(folder: str, files: set[str]) -> None:
    env = environment(ROOT, ROOT / ".pytest_cache")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", folder]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    names = {Path(line.partition("::")[0]).name for line in done.stdout.splitlines() if "::" in line}
    assert names and {name[:5].partition("_")[0] + "_" for name in names} == files, done.stdout
