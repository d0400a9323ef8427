"""Code blocks of a Markdown document, run in order, their output compared with what the document shows.

A block marked ``bash test``, ``python test`` or ``diff test`` is run (a diff is applied); a ``text`` block that
follows is its output. Python blocks of a document share their names, as in a notebook: all run where the first stands.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BORDER = "----- next block -----"
_FENCE = re.compile(r"^```(bash|python|diff) test\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block: its language, its code, the output shown (None: not shown), and the line that it begins in."""

    language: str
    code: str
    shown: str | None
    line: int


def blocks(document: Path) -> list[Block]:
    """All tested blocks of `document`."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1) for found in _FENCE.finditer(text)
    ]


def copy_of_checkout(folder: Path) -> Path:
    """What a contributor needs of this checkout, in `folder`."""
    skip = shutil.ignore_patterns("__pycache__", ".*_cache")
    for part in ("gkdbench", "kernels", "suites", "tests/methods", "tests/gkdkernels", "tests/support"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def environment(checkout: Path, cache: Path, commands: Path | None = None) -> dict[str, str]:
    """Where `checkout` is what is imported, and this interpreter's commands come first, or those in `commands`."""
    kept = {name: value for name, value in os.environ.items() if name != "GKDBENCH_DATA"}
    paths = [str(checkout), str(checkout / "kernels")]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join(
            [str(part) for part in (commands, Path(sys.executable).parent, os.environ.get("PATH", "")) if part]
        ),
        "XDG_CACHE_HOME": str(cache),
        "COLUMNS": "140",
    }


def run_all(document: Path, cwd: Path, env: dict[str, str]) -> Iterator[tuple[Block, str]]:
    """Each tested block with what it printed.

    Raises:
        AssertionError: a block failed; names its line.
    """
    found = blocks(document)
    python = [block for block in found if block.language == "python"]
    for block in found:
        if block.language == "bash":
            yield block, _checked(["bash", "-euo", "pipefail", "-c", block.code], block, document.name, cwd, env)
        elif block.language == "diff":
            yield block, _checked(["git", "apply", "-"], block, document.name, cwd, env, stdin=block.code)
        elif block is python[0]:
            yield from zip(python, _python(python, document.name, cwd, env), strict=True)


def _python(found: list[Block], name: str, cwd: Path, env: dict[str, str]) -> list[str]:
    parts = [f"exec(compile({block.code!r}, '{name}:{block.line}', 'exec'), names)" for block in found]
    script = "names = {'__name__': '__main__'}\n" + f"\nprint({BORDER!r})\n".join(parts)
    python = shutil.which("python", path=env["PATH"])
    assert python is not None
    printed = _checked([python, "-c", script], found[0], name, cwd, env)
    return printed.split(f"{BORDER}\n")


def _checked(command: list[str], block: Block, name: str, cwd: Path, env: dict[str, str], stdin: str = "") -> str:
    done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{name}:{block.line} gave {done.returncode}\n{block.code}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def difference(shown: str, printed: str) -> str:
    """Where `printed` is not what is `shown`; empty when it is.

    Words must be equal, numbers with a point within 5% or 0.25: rounding, and with it training,
    differs between processors. A line ``...`` stands
    for any lines.
    """
    wanted, got = (text.replace("─", "").split() for text in (shown, printed))
    at = 0
    for number, word in enumerate(wanted):
        if word == "...":
            following = wanted[number + 1 : number + 2]
            at = next((i for i in range(at, len(got)) if got[i : i + 1] == following), len(got))
        elif at >= len(got) or not _alike(word, got[at]):
            return f"wanted {' '.join(wanted[number : number + 6])!r}, got {' '.join(got[at : at + 6])!r}"
        else:
            at += 1
    return "" if at == len(got) else f"more was printed: {' '.join(got[at : at + 6])!r}"


_NUMBER = re.compile(r"[-+]?\d+\.\d+")


def _alike(wanted: str, got: str) -> bool:
    if _NUMBER.sub("0.0", wanted) != _NUMBER.sub("0.0", got):
        return False
    pairs = zip(map(float, _NUMBER.findall(wanted)), map(float, _NUMBER.findall(got)), strict=True)
    return all(abs(a - b) <= max(0.25, 0.05 * abs(a)) for a, b in pairs)


_ANY_FENCE = re.compile(
    r"^```(bash|python test|bash test|diff test)\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)


def shell_walk(document: Path) -> list[Block]:
    """All blocks that a reader types into a shell, those that the quick tests leave out included."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(found[1].split()[0], found[2], found[3], text.count("\n", 0, found.start()) + 1)
        for found in _ANY_FENCE.finditer(text)
    ]


class Shell:
    """One shell of a reader: what a block exports and where it changes to holds for the next.

    Args:
        folder: where it begins.
        env: all that it inherits.
    """

    def __init__(self, folder: Path, env: dict[str, str], state: Path) -> None:
        self._env, self._state, self._where = env, state, state.with_suffix(".cwd")
        state.write_text("")
        self._where.write_text(f"{folder}\n")

    def run(self, code: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `code`; the shell ends with its first failing command."""
        script = f'cd "$(cat {self._where})"; source {self._state}; set -euo pipefail\n{code}\nset +u\n'
        script += f"export -p > {self._state}; pwd > {self._where}\n"
        return subprocess.run(
            ["bash", "-c", script], env=self._env, input=stdin, capture_output=True, text=True, cwd="/"
        )
