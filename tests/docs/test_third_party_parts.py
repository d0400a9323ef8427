"""Every kind of part from another author's package: found by entry points, listed, run, in its place on the board."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.checkout import ROOT
from support.document_blocks import environment

from gkdbench.records.schema import Record
from gkdbench.records.store import Store
from gkdbench.report.board import build
from gkdbench.report.model import TableRow

OWNER = "ring-parts"
PARTS = {
    "datasets": {"ring": "ring"},
    "metrics": {"balanced_accuracy": "BalancedAccuracy"},
    "backbones": {"far": "FarConfig"},
    "methods": {"follower": "Follower", "unmoved": "Unmoved"},
}
SUITE = """
[suite]
seeds = "0:2"

[[grid]]
datasets = ["ring"]
splits = ["own"]

[[grid.methods]]
method = "follower"
epochs = 8

[[grid.methods]]
method = "unmoved"
epochs = 8
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installer leaves it: a module on the path, entry points in its metadata."""
    folder = tmp_path_factory.mktemp("ring")
    shutil.copy(ROOT / "tests/support/package/ring_parts.py", folder)
    info = folder / "ring_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {OWNER}\nVersion: 1.0\n")
    lines = []
    for group, names in PARTS.items():
        lines += [f"[gkdbench.{group}]", *(f"{name} = ring_parts:{target}" for name, target in names.items())]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    return folder


def gkdbench(home: Path, *words: str) -> str:
    env = environment(ROOT, home / "cache")
    env |= {"PYTHONPATH": os.pathsep.join([str(home), env["PYTHONPATH"]])}
    command = [sys.executable, "-m", "gkdbench.cli", *words]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", list(PARTS))
def test_it_is_listed_with_its_owner(home: Path, kind: str) -> None:
    listed: list[dict[str, Any]] = json.loads(gkdbench(home, "list", kind, "--json"))
    rows = {row[kind.removesuffix("s")]: row for row in listed}
    assert set(PARTS[kind]) <= set(rows)
    if kind != "datasets":  # of these the list has what can be read without loading them
        assert {rows[name]["owner"] for name in PARTS[kind]} == {OWNER}


@pytest.fixture(scope="module")
def records(home: Path) -> dict[str, Record]:
    """Method -> its record, run by workers."""
    (home / "ring.toml").write_text(SUITE)
    told = json.loads(gkdbench(home, "run", "ring.toml", "--jobs", "1", "--json"))
    assert (told["ok"], told["failed"]) == (12, [])  # three rows, two splits of its own, two seeds on each
    return {record.method: record for _, record in Store(home / "gkdbench-runs").records()}


def test_records_hold_what_each_part_declares(records: dict[str, Record]) -> None:
    assert {name: record.control for name, record in records.items()} == {
        "teacher": None,
        "follower": None,
        "unmoved": "no_transfer",
    }
    teacher = records["teacher"]
    assert (teacher.dataset, teacher.data.metric, teacher.config["backbone"]) == ("ring", "balanced_accuracy", "far")
    needs = {name: record.rows[0].models[0].needs for name, record in records.items()}
    assert needs == {"teacher": "graph", "follower": "features", "unmoved": "features"}


def test_the_control_stands_where_controls_stand(records: dict[str, Record]) -> None:
    (column,) = build(list(records.values())).tables
    rows: dict[str, TableRow] = {row.method: row for section in column.sections for row in section.entries}
    assert {name: row.control for name, row in rows.items()} == {
        "teacher": None,
        "follower": None,
        "unmoved": "no_transfer",
    }
    taught = [section for section in column.sections if section.kind == "taught"]
    assert [{row.method for row in section.entries} for section in taught] == [{"follower", "unmoved"}]
    assert rows["unmoved"].versus is None
    versus = rows["follower"].versus
    assert versus is not None and versus.control == rows["unmoved"].label


def test_the_scores_can_be_computed_again(home: Path, records: dict[str, Record]) -> None:
    assert "0 wrong" in gkdbench(home, "verify", "gkdbench-runs")
