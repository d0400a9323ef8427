"""``--json`` is JSON, and says what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import gkdbench

KEYS = {
    "methods": ("method", "mlp"),
    "datasets": ("dataset", "cora"),
    "splits": ("split", "planetoid-public"),
    "backbones": ("backbone", "gcn"),
    "metrics": ("metric", "accuracy"),
    "suites": ("suite", "smoke"),
}


@pytest.mark.parametrize("what", KEYS)
def test_lists(what: str) -> None:
    key, name = KEYS[what]
    rows = json.loads(gkdbench("list", what, "--json").out)
    names = [row[key] for row in rows]
    assert name in names
    lines = gkdbench("list", what).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names


def test_eight_methods_or_more() -> None:
    assert len(json.loads(gkdbench("list", "methods", "--json").out)) >= 8


def test_show() -> None:
    shown = json.loads(gkdbench("show", "glnn", "--dataset", "cora", "--json").out)
    assert (shown["method"], shown["arxiv"]) == ("glnn", "2110.08727")
    assert shown["settings"]["backbone"] == "mlp"
    assert shown["deviations"]


def test_data(tmp_path: Path) -> None:
    rows = {row["dataset"]: row for row in json.loads(gkdbench("data", "list", "--json").out)}
    assert rows["digits-knn"]["at hand"] == "built in"
    assert rows["cora"]["at hand"].startswith("0/")
    done = gkdbench("data", "check", "cora", "--data", str(tmp_path), "--json")
    assert done.code == 3
    assert {row["status"] for row in json.loads(done.out)} == {"missing"}


def test_fetch_prints_source_files_and_digests() -> None:
    done = gkdbench("data", "fetch", "cora", "--print")
    assert done.code == 0
    assert {"Planetoid/Cora/raw/ind.cora.x", "sha256", "curl"} <= set(done.out.split())


def test_new_has_no_json_and_says_so() -> None:
    assert gkdbench("new", "method", "mine", "--json").code == 2
