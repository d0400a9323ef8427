"""What a newcomer meets: every word of help, narrow terminals, files from other editors, folders that are not there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command import Done

from gkdbench.cli import LISTS, parser
from gkdbench.data.datasets import DATASETS
from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.errors import UserError
from gkdbench.execute.suite import load_suite, suite_files
from gkdbench.metrics import METRICS
from gkdbench.nn.backbones import BACKBONES
from gkdbench.report.tomlpage import read_page
from gkdbench.text_files import read_text, write_text
from gkdbench.training.registry import METHODS

Inside = Callable[..., Done]
SUITE = """[suite]
seeds = "0:1"

[[grid]]
datasets = ["csbm:n=300"]
splits = ["builtin-random"]

[[grid.methods]]
method = "mlp"
epochs = 2
"""
CORA = SUITE.replace("csbm:n=300", "cora")


def verbs(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every parser that takes arguments of its own."""
    below = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield top
    for action in below:
        for sub in action.choices.values():
            yield from verbs(sub)


def test_every_argument_of_every_verb_has_help() -> None:
    found = list(verbs(parser()))
    assert len(found) > 15
    bare = [(sub.prog, action.dest) for sub in found for action in sub._actions if not action.help]
    assert bare == []


def test_every_verb_that_prints_a_result_has_json() -> None:
    without = {sub.prog for sub in verbs(parser()) if "--json" not in sub._option_string_actions}
    assert without == {"gkdbench new", "gkdbench profile docs"}  # they write files


def test_verbs_that_read_runs_look_in_one_folder() -> None:
    top = parser()
    asked = {verb: top.parse_args([verb]) for verb in ("verify", "report", "collect")}
    assert asked["report"].paths == [asked["verify"].path] == [asked["collect"].out] == ["gkdbench-runs"]


@pytest.mark.parametrize(
    "words",
    [*(["list", what] for what in LISTS), ["data", "list"], ["data", "check", "cora"], ["show", "rbm"], ["doctor"]],
    ids=" ".join,
)
def test_what_is_printed_fits_80_columns(inside: Inside, words: list[str]) -> None:
    lines = inside(*words, columns=80).out.splitlines()
    assert lines
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []


NAMES = {
    "dataset": ("actor", DATASETS.names),
    "split": ("own", lambda: list(SPLIT_FAMILIES)),
    "backbone": ("gat", BACKBONES.names),
    "metric": ("accuracy", METRICS.names),
    "suite": ("node-small@1", lambda: list(suite_files())),
    "method": ("glnn", METHODS.names),
}


@pytest.mark.parametrize("kind", NAMES)
def test_whatever_is_listed_can_be_shown(inside: Inside, kind: str) -> None:
    name, names = NAMES[kind]
    assert name in names()
    assert inside("show", name).out.splitlines()[0] == f"{kind}: {name}"
    assert json.loads(inside("show", name, "--json").out)[kind] == name
    near = inside("show", f"{name}q")
    assert near.code == 2
    assert f"unknown {kind} '{name}q'; did you mean" in near.err and repr(name) in near.err


def test_a_data_set_is_shown_and_listed_without_its_files(inside: Inside) -> None:
    shown = json.loads(inside("show", "cora", "--json").out)
    rows = {row["dataset"]: row for row in json.loads(inside("list", "datasets", "--json").out)}
    for facts in (shown, rows["cora"]):
        assert (facts["nodes"], facts["edges"], facts["features"], facts["classes"]) == (2708, 10556, 1433, 7)
        assert facts["metric"] == "accuracy" and facts["licence"] and "planetoid-public" in facts["splits"].split()
    assert shown["read from"]["cpf-lcc-20-30"] == "the files of cora-cpf"
    assert shown["files"].startswith("0 of ")
    assert "bzr" in rows and inside("show", "bzr").out.count(": unknown") == 3  # no file of it was ever registered


def test_options_of_methods_are_refused_for_other_kinds(inside: Inside) -> None:
    done = inside("show", "cora", "--split", "planetoid-public")
    assert done.code == 2
    assert "--split: expected a method to go with, got the dataset 'cora'" in done.err


@pytest.mark.parametrize(
    "written", [f"\ufeff{SUITE}", SUITE.replace("\n", "\r\n"), f"\ufeff{SUITE}".replace("\n", "\r\n")]
)
def test_suites_of_other_editors_are_read(tmp_path: Path, written: str) -> None:
    for name, text in (("plain", SUITE), ("other", written)):
        (tmp_path / f"{name}.toml").write_bytes(text.encode())
    plain, other = (load_suite(tmp_path / f"{name}.toml") for name in ("plain", "other"))
    assert other.grids == plain.grids and other.seeds == plain.seeds


def test_pages_of_other_editors_are_read(tmp_path: Path) -> None:
    from pydantic import BaseModel

    class Page(BaseModel):
        title: str

    (tmp_path / "page.toml").write_bytes('\ufefftitle = "x"\r\n'.encode())
    assert read_page(tmp_path / "page.toml", Page) == Page(title="x")


@pytest.mark.parametrize("made", ["absent", "folder", "latin"])
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, made: str) -> None:
    path = tmp_path / "x.toml"
    if made == "folder":
        path.mkdir()
    if made == "latin":
        path.write_bytes("title = 'ü'".encode("latin-1"))
    with pytest.raises(UserError, match=r"suite file .*x\.toml"):
        read_text(path, "suite file")


def test_a_folder_is_made_or_the_refusal_names_the_path(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a" / "b" / "c.csv", "x").read_text() == "x"
    with pytest.raises(UserError, match=r"cannot write .*c\.csv"):
        write_text(tmp_path / "a" / "b" / "c.csv" / "d.csv", "x")


def test_the_advice_names_the_files_that_are_lacking(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "cora.toml").write_text(CORA.replace("builtin-random", "cpf-lcc-20-30"))
    assert "`gkdbench data fetch cora-cpf`" in inside("plan", "cora.toml").out
    (tmp_path / "cora.toml").write_text(CORA.replace("builtin-random", "planetoid-public"))
    assert "`gkdbench data fetch cora`" in inside("plan", "cora.toml").out
    done = inside("profile", "training", "mlp", "--dataset", "cora", "--split", "cpf-lcc-20-30")
    assert done.code == 2 and "gkdbench data fetch cora-cpf" in done.err


@pytest.mark.parametrize(
    "words", [["list", "datasets"], ["data", "list"], ["data", "check", "cora"], ["plan", "mine.toml"]]
)
def test_a_data_folder_that_is_not_there_is_named(
    inside: Inside, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.setenv("GKDBENCH_DATA", str(tmp_path / "nowhere"))
    said = f"GKDBENCH_DATA: expected a folder of raw files, got '{tmp_path / 'nowhere'}', no folder"
    assert said in inside(*words).err
    monkeypatch.setenv("GKDBENCH_DATA", str(tmp_path))
    assert said not in inside(*words).err


def test_fetch_says_when_there_is_nothing_to_do_and_what_other_splits_read(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gkdbench.data.check.fetch", lambda *_, **__: [])
    done = inside("data", "fetch", "cora", "--data", str(tmp_path), "--json")
    assert json.loads(done.out) == {"dataset": "cora", "written": [], "unverified": []}
    assert "nothing to fetch" in done.err and "`gkdbench data fetch cora-cpf`" in done.err
    printed = json.loads(inside("data", "fetch", "cora", "--print", "--json").out)
    assert printed["files"][0]["path"].startswith("Planetoid/Cora")


def test_a_cost_suite_without_data_is_not_done(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "cost.toml").write_text(
        CORA.replace("[suite]", '[suite]\nmeasures = "cost"').replace("builtin-random", "planetoid-public")
    )
    for verb in ("plan", "run"):
        assert inside(verb, "cost.toml").code == 3


def test_an_interrupted_run_says_the_command_that_was_given(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gkdbench.execute.runner import Interrupted, RunSummary

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted(RunSummary(), 3, "gkdbench run mine.toml")

    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.setattr("gkdbench.execute.api.run_suite", stopped)
    done = inside("run", "mine.toml", "--only", "method=mlp|kd", "--jobs", "1")
    assert done.code == 130
    assert done.err.rstrip().endswith("3 left; go on with: gkdbench run mine.toml --only 'method=mlp|kd' --jobs 1")


def test_a_misspelt_option_has_the_usage_of_its_verb_and_the_nearest(inside: Inside) -> None:
    done = inside("run", "smoke", "--seedz", "3", "--jbos", "2")
    assert done.code == 2
    assert done.err.startswith("usage: gkdbench run ")
    assert "unrecognized arguments: --seedz (did you mean --seeds?) --jbos (did you mean --jobs?)" in done.err


def test_rows_of_a_task_of_a_script_are_not_checked_elsewhere(inside: Inside, tmp_path: Path) -> None:
    import numpy as np

    import gkdbench

    ring = np.stack([np.arange(60), (np.arange(60) + 3) % 60])
    task = gkdbench.Task.from_arrays(
        "ring-of-a-script", np.concatenate([ring, ring[::-1]], axis=1), np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    )
    out = str(tmp_path / "runs")
    assert gkdbench.run(task=task, methods="mlp", seeds=0, overrides={"epochs": 1}, out=out, jobs=1).ok == 1
    done = inside("verify", out)
    assert (done.code, "0 wrong, 1 not checked" in done.out) == (3, True), done.out
    assert "ring-of-a-script is not registered here" in done.out
    assert "known in that script only" in inside("run", "--method", "mlp", "--dataset", "ring-of-a-script").err
