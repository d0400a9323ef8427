"""One small run that the tests of this folder look at, and a cache of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import ONLY, Done, gkdbench

from gkdbench.cli import main


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli-cache")


@pytest.fixture(autouse=True)
def own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test at a time: other folders of tests have caches of their own in the same process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))


@pytest.fixture(scope="session")
def smoke_run(cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder that one smoke cell was run in, and what the command said as JSON."""
    folder = tmp_path_factory.mktemp("anywhere")
    env = {"XDG_CACHE_HOME": str(cache_folder)}
    done = gkdbench("run", "smoke", "--only", ONLY, "--jobs", "1", "--json", cwd=folder, env=env)
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """inside(*words, cwd=..., columns=...): the command in this process, where torch is imported; without raw data."""
    monkeypatch.delenv("GKDBENCH_DATA", raising=False)

    def call(*words: str, cwd: Path = tmp_path, columns: int = 160) -> Done:
        monkeypatch.setenv("COLUMNS", str(columns))  # the paths of tests are long
        monkeypatch.chdir(cwd)
        try:
            code = main(words)
        except SystemExit as stop:  # the parser's own refusals
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err, 0.0)

    return call
