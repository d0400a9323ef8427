"""Toy runs shared by the tests of this folder: a worker costs two seconds of imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.toy_plugin import install, on_path, taught_suite

from gkdbench.execute.api import run_suite
from gkdbench.execute.runner import RunSummary


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    install(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def toys(plugin: Path) -> Iterator[None]:
    with on_path(plugin), pytest.MonkeyPatch.context() as patch:
        patch.setattr("gkdbench.execute.suite.TIME_LIMIT_S", 20.0)  # a cell that hangs fails its test soon
        yield


@pytest.fixture(scope="module")
def warm_workers(toys: None) -> Iterator[None]:
    """For modules whose cells use optimisers: imported once by the worker, and not by each cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GKDBENCH_WORKER_COLD", raising=False)
        yield


@pytest.fixture(scope="session")
def toy_run(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """One undisturbed run of `taught_suite` by one worker; copy the folder before changing it."""
    out = tmp_path_factory.mktemp("toy") / "out"
    with on_path(plugin):
        return out, run_suite(taught_suite(), out=out, jobs=1, device="cpu")
