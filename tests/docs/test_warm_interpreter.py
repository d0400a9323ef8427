"""Commands of the warm interpreter do what those of a cold one do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.warm_interpreter import warm_commands

SHOW = "import os, sys; print(sys.argv[1:], sys.path[0], os.getcwd(), os.environ['WORD'], 'json' in sys.modules)"
CALLS = {
    "code": (["-c", SHOW, "a", "b c"], ""),
    "script": (["below/show.py", "--word", "*"], ""),
    "module": (["-m", "show", "x"], ""),
    "input": (["-"], "print(6 * 7, __name__)"),
    "two lines": (["-c", "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr)"], "one\ntwo\n"),
    "exit code": (["-c", "import sys; sys.exit(3)"], ""),
    "message": (["-c", "import sys; sys.exit('no')"], ""),
    "raised": (["-c", "1 / 0"], ""),
    "killed": (["-c", "import os; os.kill(os.getpid(), 9)"], ""),
    "own package": (["-c", "import beside; print(beside.__file__)"], ""),
}


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_commands(tmp_path_factory.mktemp("warm") / "bin", warm=("json",)) as folder:
        yield folder


@pytest.mark.parametrize("name", CALLS)
def test_a_command_does_what_a_cold_one_does(name: str, shims: Path, tmp_path: Path) -> None:
    arguments, stdin = CALLS[name]
    for folder in ("below", "packages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "below" / "show.py").write_text(SHOW)
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "packages" / "beside.py").write_text("")
    env = {**os.environ, "WORD": "said", "PYTHONPATH": str(tmp_path / "packages")}
    warm, cold = (
        subprocess.run(
            ["sh", "-c", '"$0" "$@"', program, *arguments],
            input=stdin,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        for program in (str(shims / "python"), sys.executable)
    )
    assert warm.returncode == cold.returncode
    assert warm.stdout.replace(" True\n", " False\n") == cold.stdout.replace(" True\n", " False\n")
    if name != "killed":  # the shell says so itself
        assert warm.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]
    assert name != "code" or warm.stdout.endswith(" True\n")  # in the fork of an interpreter that has imported it


def test_nothing_of_one_command_is_left_for_the_next(shims: Path, tmp_path: Path) -> None:
    python = str(shims / "python")
    subprocess.run(
        [python, "-c", "import sys, os; sys.planted = os.environ['PLANTED'] = 'x'"], cwd=tmp_path, check=True
    )
    look = "import sys, os; print(hasattr(sys, 'planted'), 'PLANTED' in os.environ)"
    assert subprocess.run([python, "-c", look], capture_output=True, text=True).stdout == "False False\n"


def test_gkdbench_is_the_command_of_this_environment(shims: Path) -> None:
    done = subprocess.run([str(shims / "gkdbench"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("gkdbench "), done.stderr
