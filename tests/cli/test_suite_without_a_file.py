"""``--method`` and ``--dataset`` in place of a suite: what they describe, and what is refused; every cell as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import Done

import gkdbench
from gkdbench.cli import parser
from gkdbench.errors import UserError
from gkdbench.execute.inline_suite import hyper_parameters, method_with_hyper_parameters, suite_of

Inside = Callable[..., Done]


def test_words_are_toml_values_and_bare_words(inside: Inside) -> None:
    words = ["lr=0.01", "epochs=3", "model.hidden=8", "on=true", 'tags=["a", "b"]', "backbone=gcn", 'quoted="x y"']
    assert hyper_parameters(words) == {
        "lr": 0.01,
        "epochs": 3,
        "model": {"hidden": 8},
        "on": True,
        "tags": ["a", "b"],
        "backbone": "gcn",
        "quoted": "x y",
    }
    for wrong, said in [
        (["lr"], "key=value"),
        (["lr=[1"], "expected a number"),
        (["lr=1\nx=2"], "expected a number"),
        (["lr=1", "lr=2"], "expected one value"),
        (["model=1", "model.hidden=2"], "has a value already"),
    ]:
        with pytest.raises(UserError, match=said):
            hyper_parameters(wrong)


def test_the_options_in_a_records_command_describe_the_same_suite() -> None:
    suite = suite_of(
        methods=["mlp", {"method": "glnn", "lr": 0.02, "model": {"hidden": 8}, "teacher": "gcn"}],
        dataset="csbm:n=400",
        seeds=[0, 4],
        overrides={"epochs": 3, "lr": 0.1},
    )
    args = parser().parse_args(["run", *shlex.split(suite.command_name)])
    methods = [method_with_hyper_parameters(text) for text in args.method]
    again = suite_of(methods=methods, dataset=args.dataset, split=args.split, seeds=args.seeds)
    assert again == suite
    assert suite.grids[0].methods[1].overrides == {"epochs": 3, "lr": 0.02, "model": {"hidden": 8}, "teacher": "gcn"}
    assert suite.grids[0].splits == ["builtin-random"]


def test_words_may_stand_anywhere(inside: Inside) -> None:
    words = ("lr=0.1", "--method", "mlp", "epochs=2", "--dataset", "csbm:n=400", "model.hidden=8", "--seeds", "0:2")
    done = inside("plan", *words, "--device", "cpu", "--json", "--cells")
    assert done.code == 0, done.err
    assert "split: builtin-random (the default of csbm:n=400" in done.err
    found = json.loads(done.out)
    assert (found["cells"], found["suite"]) == (2, "mlp on csbm:n=400")
    listed: list[dict[str, Any]] = found["cell_list"]
    assert [cell["key"] for cell in listed] == sorted(cell["key"] for cell in listed)
    assert {(cell["method"], cell["index"], cell["seed"], cell["cached"]) for cell in listed} == {
        ("mlp", 0, 0, False),
        ("mlp", 1, 1, False),
    }
    fields = ["key", "method", "label", "dataset", "split", "setting", "index", "seed", "tier", "cached"]
    assert list(listed[0]) == fields


def test_cached_cells_are_listed_too(inside: Inside, smoke_run: tuple[Path, dict[str, Any]]) -> None:
    done = inside("plan", "smoke", "--only", "method=mlp", "--json", "--cells", cwd=smoke_run[0])
    found = json.loads(done.out)
    assert [cell["cached"] for cell in found["cell_list"]].count(True) == found["cached"] == 1
    assert len(found["cell_list"]) == found["cells"]
    assert "cell_list" not in json.loads(inside("plan", "smoke", "--json", cwd=smoke_run[0]).out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan", "expected a suite, or methods and a data set; got no methods and no dataset"),
        ("plan smoke --method mlp", "got the suite 'smoke' and methods"),
        ("plan smoke --seeds 0:2", "got the suite 'smoke' and seeds"),
        ("plan smoke lr=1", "lr=1: hyper-parameters go with --method and --dataset, got the suite 'smoke'"),
        ("plan lr=1", "lr=1: hyper-parameters go with --method and --dataset"),
        ("plan --method mlp", "got no dataset"),
        ("plan --dataset cora", "got no methods"),
        ("plan a b", "expected one suite, got a, b"),
        ("plan smoke --foo", "unrecognized arguments: --foo"),
        ("list methods lr=1", "unrecognized arguments: lr=1"),
        ("plan --method mlp --dataset coraa", "unknown dataset 'coraa'; did you mean 'cora'"),
        ("plan --method mlp --dataset csbm --split builtin-randon", "unknown split 'builtin-randon'"),
        ("plan --method mlp --dataset csbm --seeds 0-3", "seeds"),
        ("run smoke --debug seed=0 --rerun", "leave out --rerun"),
        # Of a data set whose files are absent:
        ("plan --method mlpp --dataset cora", "unknown method 'mlpp'; did you mean 'mlp'"),
        ("plan --method mlp --dataset cora lrr=1", "unknown setting of method 'mlp' 'lrr'; did you mean 'lr'"),
        ("plan --method mlp --dataset cora lr=fast", "lr: expected a valid number, got 'fast'"),
        ("plan --method glnn --dataset cora teacher=gnc", "'gnc'"),
        ("plan --method mlp --dataset mutag", "expected node tasks, got mutag, a graph task"),
    ],
)
def test_it_is_refused_by_name(inside: Inside, words: str, said: str) -> None:
    done = inside(*words.split())
    assert done.code == 2
    assert said in done.err


def test_python_takes_the_same(tmp_path: Path) -> None:
    plan = gkdbench.plan(methods="mlp", dataset="csbm:n=400", seeds=[0, 2], overrides={"epochs": 2}, out=tmp_path)
    assert [(cell.seed, cell.group.identity.config["epochs"]) for cell in plan.todo] == [(0, 2), (2, 2)]
    for wrong in ({}, {"methods": "mlp"}, {"suite": "smoke", "dataset": "csbm"}, {"methods": [3], "dataset": "csbm"}):
        with pytest.raises(UserError):
            gkdbench.plan(**wrong, out=tmp_path)
    with pytest.raises(TypeError):
        gkdbench.plan(methods="mlp", dataset="csbm", lr=1)  # type: ignore[call-arg]
