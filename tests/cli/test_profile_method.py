"""``gkdbench profile training`` and ``gkdbench profile inference`` as a shell sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Done, gkdbench

from gkdbench.cli import parser
from gkdbench.verbs.profile.bench import wanted_environment
from gkdbench.verbs.profile.whole_method import _words

Inside = Callable[..., Done]
DATA = "csbm:n=210,classes=3,d=16,degree=6"


def test_page_and_trace_are_written(tmp_path: Path) -> None:
    done = gkdbench(
        *["profile", "training", "mlp", "model.hidden=8", "--dataset", DATA, "--epochs", "1", "--quick"],
        *["--out", "here/profiles", "--json"],
        cwd=tmp_path,
        env=wanted_environment(1),  # as the process that measures is started
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    (profile,) = told["profiles"]
    assert sum(row["share"] for row in profile["rows"]) == pytest.approx(1.0)
    text = (tmp_path / told["page"]).read_text()
    assert text.startswith("# Training of mlp on csbm")
    assert "`aten::addmm`" in text or "`gkdkernels::matrix_product`" in text
    events = json.loads((tmp_path / profile["trace"]).read_text())["traceEvents"]
    assert any(event.get("name") == "gkdbench::monitor" for event in events)


def test_the_measuring_process_gets_the_same_arguments() -> None:
    line = "profile inference rbm lr=0.1 model.k=1 --dataset cora --epochs 2 --threads 2 --quick --out x"
    args = parser().parse_args(line.split())
    again = parser().parse_args(["profile", "inference", *_words(args)])
    assert {**vars(again), "parser": None} == {**vars(args), "parser": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["glmn"], "unknown method 'glmn'; did you mean 'glnn'"),
        (["mlp", "hiden=3"], "hiden"),
        (["mlp", "hidden"], "expected key=value, got 'hidden'"),
        (["mlp", "--dataset", "coraa"], "unknown dataset 'coraa'; did you mean 'cora'"),
        (["mlp", "--dataset", "cora"], "cora: expected its raw files, got none; try `gkdbench data fetch cora`"),
        (["mlp", "--dataset", "digits-grid"], "method 'mlp'"),
        (["mlp", "--epochs", "0"], "--epochs: expected a whole number from 1 to 1,000,000, got '0'"),
        (["mlp", "--threads", "0"], "--threads: expected a whole number from 1 to 256, got '0'"),
        (["mlp", "--out", "file/out"], "--out: expected a folder that can be written, got file/out"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("action", ["training", "inference"])
def test_bad_input_is_refused_with_a_sentence(
    inside: Inside, tmp_path: Path, action: str, words: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = inside("profile", action, *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
