"""``--json`` is JSON, and says what the table says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Done

Inside = Callable[..., Done]

KEYS = {
    "methods": ("method", "mlp"),
    "recipes": ("recipe", "rumiantsev2024_rbm_cora_tran_sage"),
    "datasets": ("dataset", "cora"),
    "splits": ("split", "planetoid-public"),
    "backbones": ("backbone", "gcn"),
    "metrics": ("metric", "accuracy"),
    "suites": ("suite", "smoke"),
}


@pytest.mark.parametrize("what", KEYS)
def test_lists(inside: Inside, what: str) -> None:
    key, name = KEYS[what]
    rows = json.loads(inside("list", what, "--json").out)
    names = [row[key] for row in rows]
    assert name in names
    lines = inside("list", what).out.splitlines()
    if what == "methods":  # by family: a method's line is indented by two, the rest of its sentence by more
        assert sorted(line.split()[0] for line in lines if re.match("  [^ ]", line)) == names
    else:
        assert [line.split()[0] for line in lines[1:] if line[0] != " "] == names  # the rest of a row is indented


def test_eight_methods_or_more(inside: Inside) -> None:
    assert len(json.loads(inside("list", "methods", "--json").out)) >= 8


def test_a_recipe_is_shown_by_its_name(inside: Inside) -> None:
    listed = json.loads(inside("list", "recipes", "--json").out)
    released = {row["recipe"] for row in listed if row["recipe"].startswith("rumiantsev2024_")}
    assert len(released) == 81
    name = "rumiantsev2024_rbm_pubmed_ind_sage"
    assert [row["method"] for row in listed if row["recipe"] == name] == ["rbm", "teacher"]
    shown = json.loads(inside("show", name, "--json").out)
    assert (shown["method"], shown["settings"]["recipe"], shown["settings"]["model"]["experts"]) == ("rbm", name, 4)
    asked = json.loads(inside("show", "teacher", "--recipe", name, "--json").out)
    assert asked["method"] == "teacher"


def test_show(inside: Inside) -> None:
    shown = json.loads(inside("show", "glnn", "--dataset", "cora", "--json").out)
    assert (shown["method"], shown["arxiv"]) == ("glnn", "2110.08727")
    assert shown["settings"]["backbone"] == "mlp"
    assert shown["deviations"]


def test_data(inside: Inside, tmp_path: Path) -> None:
    rows = {row["dataset"]: row for row in json.loads(inside("data", "list", "--json").out)}
    assert rows["digits-knn"]["available"] == "built in"
    assert rows["cora"]["available"].startswith("0/")
    done = inside("data", "check", "cora", "--data", str(tmp_path), "--json")
    assert done.code == 3
    assert {row["status"] for row in json.loads(done.out)} == {"missing"}


def test_fetch_prints_source_files_and_digests(inside: Inside) -> None:
    done = inside("data", "fetch", "cora", "--print")
    assert done.code == 0
    assert {"Planetoid/Cora/raw/ind.cora.x", "sha256", "curl"} <= set(done.out.split())


def test_new_has_no_json_and_says_so(inside: Inside) -> None:
    assert inside("new", "method", "mine", "--json").code == 2
