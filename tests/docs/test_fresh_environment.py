"""README and CONTRIBUTING, followed literally: a fresh clone, what their first block installs, every block in order.

Nothing of this environment is used but the interpreter and pip's cache of downloads. Times and hashes that a document
shows are written as ``...`` there; numbers may differ as `difference` allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.document_blocks import BORDER, ROOT, Block, Shell, difference, shell_walk

INSTEAD = (
    ("make test ", "make check "),  # the tests would run this test; `make check` makes the same environment
    ("git clone ADDRESS && cd gkdbench", "true"),  # the clone is made below: ADDRESS is a placeholder
)
"""What is typed in place of a document's own words."""
KEPT = ("PIP_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "SSL_", "REQUESTS_")
"""How names begin that a machine needs to reach a package index."""


def fresh(home: Path) -> dict[str, str]:
    """The environment of somebody who has never been here."""
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True)
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    path = [str(Path(sys.base_prefix) / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]
    made = {"HOME": str(home), "LANG": "C.UTF-8", "PATH": os.pathsep.join(path)}
    return made | ({"PIP_CACHE_DIR": cache.stdout.strip()} if cache.returncode == 0 else {}) | kept


def python_script(blocks: list[Block]) -> str:
    """One program of all Python blocks, which share their names; a border stands between their outputs."""
    parts = [f"exec(compile({block.code!r}, 'block:{block.line}', 'exec'), names)" for block in blocks]
    return "names = {'__name__': '__main__'}\n" + f"\nprint({BORDER!r})\n".join(parts)


def follow(document: Path, shell: Shell) -> list[str]:
    """What went another way than `document` says: a block that fails, or prints something else."""
    walk, wrong = shell_walk(document), []
    python = [block for block in walk if block.language == "python"]
    printed: list[str] = []
    for block in walk:
        where = f"{document.name}:{block.line}"
        code = block.code
        for theirs, ours in INSTEAD:
            code = code.replace(theirs, ours)
        if block.language == "python":
            if block is python[0]:
                done = shell.run("python -", stdin=python_script(python))
                printed = done.stdout.split(f"{BORDER}\n")
                if done.returncode != 0:
                    wrong.append(f"{where}: exit {done.returncode}\n{done.stderr[-2000:]}")
            index = python.index(block)
            out = printed[index] if index < len(printed) else ""
        else:
            done = shell.run("git apply -", stdin=code) if block.language == "diff" else shell.run(code)
            out = done.stdout
            if done.returncode != 0:
                wrong.append(f"{where}: exit {done.returncode}\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        if block.shown is not None and (found := difference(block.shown, out)):
            wrong.append(f"{where}: {found}\n{out[-2000:]}")
    return wrong


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_a_newcomer_gets_what_the_document_shows(name: str, tmp_path: Path) -> None:
    clone, home = tmp_path / "gkdbench", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    assert follow(clone / name, Shell(clone, fresh(home), tmp_path / "state")) == []


def test_the_walk_sees_what_is_wrong(tmp_path: Path) -> None:
    text = "```bash\nmkdir below && cd below\nexport WORD=here\n```\n\n```bash test\nbasename $PWD; echo $WORD\n```\n"
    right = "```text\nbelow\nhere\n```\n"
    tail = "\n```bash test\nabsent-command\n```\n\n```python test\nx = 1\n```\n\n```python test\nprint(x + 1)\n```\n"
    document = tmp_path / "README.md"
    document.write_text(f"{text}{right}{tail}```text\n2\n```\n")
    env = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])}
    (wrong,) = follow(document, Shell(tmp_path, env, tmp_path / "state"))
    assert "README.md:14: exit 127" in wrong
    (tmp_path / "below").rmdir()
    document.write_text(text + right.replace("here", "there"))
    (wrong,) = follow(document, Shell(tmp_path, env, tmp_path / "state"))
    assert "wanted 'there', got 'here'" in wrong
