"""Requests that mean nothing are refused in words, and never end as a success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Done

from gkdbench.execute.suite import parse_suite

Inside = Callable[..., Done]

SUITE = """[suite]
seeds = {seeds}
[[grid]]
datasets = ["{dataset}"]
splits = ["builtin-random"]
{grid}
[[grid.methods]]
method = "mlp"
{method}
"""


def suite(
    folder: Path, *, seeds: str = '"0:3"', dataset: str = "csbm:n=300", grid: str = "", method: str = "epochs = 1"
) -> str:
    text = SUITE.format(seeds=seeds, dataset=dataset, grid=grid, method=method)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return "mine.toml"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": 'datasets = ["csbm:n=30"]'}, "datasets: expected names that the grid lists, got 'csbm:n=30'; did"),
        ({"method": 'splits = ["builtin-randon"]'}, "did you mean 'builtin-random'?"),
        ({"method": "splits = []"}, "splits: expected one name or more, got none"),
        ({"method": 'per_dataset = {"csbm:n=3" = {lr = 0.1}}'}, "per_dataset: expected names that the grid lists"),
        ({"method": "epoch = 1"}, "did you mean 'epochs'?"),
        ({"method": "model = {hiden = 3}"}, "hidden"),
        ({"method": "lr = inf"}, "lr: expected a finite number, got inf"),
        ({"method": "lr = nan"}, "lr: expected a finite number, got nan"),
        ({"method": "weight_decay = inf"}, "weight_decay: expected a finite number"),
        ({"grid": 'settings = ["tran"]'}, "unknown key 'settings'"),
        ({"seeds": '"0:1000000000000"'}, "expected at most 1000 seeds"),
        ({"seeds": f'"{"9" * 5000}:{"9" * 5001}"'}, "expected at most 1000 seeds"),
        ({"dataset": "csbm:n=300,n=400"}, "csbm: n: expected one value, got a second"),
        ({"dataset": "csbm:n=300,degree=nan"}, "degree: expected a finite number, got 'nan'"),
        ({"dataset": "csbm:n=300,degree=inf"}, "degree: expected a finite number, got 'inf'"),
        ({"dataset": "csbm:n=300,degree=-3"}, "degree: expected 0 or more, got -3"),
        ({"dataset": "powerlaw:n=300,seed=-1"}, "seed: expected 0 or more, got -1"),
        ({"dataset": "csbm:n=300,signal=nan"}, "signal: expected a finite number"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_suite(inside: Inside, tmp_path: Path, changed: dict[str, str], said: str) -> None:
    done = inside("plan", suite(tmp_path, **changed))
    assert (done.code, done.out) == (2, ""), done.err
    assert said in done.err


def test_without_the_check_of_filters_a_misspelt_one_plans_nothing_and_succeeds(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control."""
    monkeypatch.setattr("gkdbench.execute.suite._refuse_filters_of_nothing", lambda *given: None)
    done = inside("plan", suite(tmp_path, method='datasets = ["csbm:n=30"]'))
    assert done.code == 0 and "0 cells" in done.out + done.err, (done.out, done.err)


def test_the_same_suite_unchanged_is_planned(inside: Inside, tmp_path: Path) -> None:
    done = inside("plan", suite(tmp_path, method='datasets = ["csbm:n=300"]'))
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-cells", "-1"], "--max-cells: expected a whole number from 0"),
        (["--jobs", "99999999"], "--jobs: expected a whole number from 1"),
        (["--threads", "-2"], "--threads: expected a whole number from 1"),
        (["--only", "seed=0,seed=1"], "try seed=0|1 for either"),
        (["--out", ""], "--out: expected a folder, got an empty name"),
    ],
    ids=" ".join,
)
def test_an_option_of_plan(inside: Inside, tmp_path: Path, words: list[str], said: str) -> None:
    done = inside("plan", suite(tmp_path), *words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "results", "--rerun", "-1"],
        ["verify", "results", "--rerun", "1", "--seed", "-1"],
        ["profile", "kernels", "--rounds", "0"],
        ["profile", "kernels", "--budget", "nan"],
        ["profile", "training", "mlp", "--epochs", "-5"],
        ["profile", "training", "mlp", "--threads", "0"],
    ],
    ids=" ".join,
)
def test_a_number_of_any_verb(inside: Inside, words: list[str]) -> None:
    done = inside(*words)
    assert done.code == 2
    assert "expected a whole number from" in done.err or "expected seconds above 0" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "mlp", "--dataset", "nosuch"], "unknown dataset 'nosuch'"),
        (["show", "mlp", "--split", "builtin-randon"], "did you mean 'builtin-random'"),
        (["collect", "absent"], "expected the folder of a run, got 'absent'"),
        (["verify", "absent"], "absent"),
        (["report", ".", "--claims", "absent"], "--claims: expected a folder of TOML files"),
        (["report", ".", "--readme", "absent.txt"], "expected a file, got 'absent.txt'"),
        (["report", ".", "--published", "absent.toml"], "expected a file, got 'absent.toml'"),
    ],
    ids=" ".join,
)
def test_what_is_not_there(inside: Inside, words: list[str], said: str) -> None:
    done = inside(*words)
    assert done.code != 0
    assert said in done.err


def test_a_folder_that_no_run_made_is_not_collected(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "page.html").write_text("")
    done = inside("collect", "mine")
    assert done.code == 2 and "neither cells nor records" in done.err
    (tmp_path / "mine" / ".cells").mkdir()
    assert inside("collect", "mine").code == 0


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_absent_data_are_exit_code_3(inside: Inside, tmp_path: Path, verb: str) -> None:
    text = '[[grid]]\ndatasets = ["cora"]\nsplits = ["planetoid-public"]\n[[grid.methods]]\nmethod = "mlp"\n'
    (tmp_path / "cora.toml").write_text(text, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        done = inside(verb, "cora.toml", "--data", folder)
        assert done.code == 3
        assert folder in done.err


def test_seeds_up_to_the_bound_are_taken() -> None:
    document = {
        "suite": {"seeds": "0:50"},
        "grid": [{"datasets": ["csbm"], "splits": ["builtin-random"], "methods": [{"method": "mlp"}]}],
    }
    assert parse_suite(document).seeds == tuple(range(50))
