"""Bad input on the command line: exit code 2, one message with what was got, and the nearest that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Done, gkdbench

Inside = Callable[..., Done]


def test_a_shell_sees_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = gkdbench("show", "glmn", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("gkdbench: unknown method 'glmn'; did you mean 'glnn'")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "glmn"], "unknown method 'glmn'; did you mean 'glnn'"),
        (["run", "smok"], "unknown suite 'smok'; did you mean 'smoke'"),
        (["run", "no-such.toml"], "no-such.toml cannot be read"),
        (["plan", "smoke", "--only", "method=mlpp"], "'mlpp'; did you mean 'mlp'"),
        (["plan", "smoke", "--jobs", "0"], "--jobs: expected a whole number from 1 to 4,096, got '0'"),
        (["data", "check", "coraa"], "unknown dataset 'coraa'; did you mean 'cora'"),
        (["data", "fetch", "cora"], "set GKDBENCH_DATA"),
        (["report", "nowhere"], "nowhere"),
        (["list", "method"], "invalid choice: 'method'"),
        (["rum"], "invalid choice: 'rum'"),
        (["new", "method", "GLNN2"], "expected lower case"),
        (["new", "method", "glnn"], "there is a method 'glnn' already"),
    ],
    ids=" ".join,
)
def test_it_is_refused_by_name(inside: Inside, words: list[str], said: str) -> None:
    done = inside(*words)
    assert done.code == 2
    assert said in done.err


def test_a_suite_file_names_its_wrong_key(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[suite]\nsedes = "0:3"\n')
    done = inside("plan", "mine.toml")
    assert done.code == 2
    assert "mine.toml: [suite]: unknown key 'sedes'; did you mean 'seeds'" in done.err


def test_an_output_folder_that_refuses_is_named(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = inside("run", "smoke", "--only", "method=mlp", "--out", "file/out")
    assert done.code == 2
    assert "file/out" in done.err
