"""Bad input on the command line: exit code 2, one message with what was got, and the nearest that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import gkdbench


def refused(*words: str, cwd: Path) -> str:
    """What is said to arguments that are refused, on one or few lines, with no traceback."""
    done = gkdbench(*words, cwd=cwd)
    assert done.code == 2, done.out + done.err
    assert "Traceback" not in done.err
    return done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "glmn"], "unknown method 'glmn'; did you mean 'glnn'"),
        (["run", "smok"], "unknown suite 'smok'; did you mean 'smoke'"),
        (["run", "no-such.toml"], "no-such.toml cannot be read"),
        (["plan", "smoke", "--only", "method=mlpp"], "'mlpp'; did you mean 'mlp'"),
        (["plan", "smoke", "--jobs", "0"], "jobs wants 1 or more, got 0"),
        (["data", "check", "coraa"], "unknown dataset 'coraa'; did you mean 'cora'"),
        (["data", "fetch", "cora"], "set GKDBENCH_DATA"),
        (["report", "nowhere"], "nowhere"),
        (["list", "method"], "invalid choice: 'method'"),
        (["rum"], "invalid choice: 'rum'"),
        (["new", "method", "GLNN2"], "wants lower case"),
        (["new", "method", "glnn"], "there is a method 'glnn' already"),
    ],
    ids=" ".join,
)
def test_it_is_refused_by_name(words: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(*words, cwd=tmp_path)


def test_a_suite_file_names_its_wrong_key(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[suite]\nsedes = "0:3"\n')
    assert "mine.toml: [suite]: unknown key 'sedes'; did you mean 'seeds'" in refused("plan", "mine.toml", cwd=tmp_path)


def test_an_output_folder_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refused("run", "smoke", "--only", "method=mlp", "--out", "file/out", cwd=tmp_path)
    assert "file/out" in said
