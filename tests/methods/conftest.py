"""A workshop for method tests: small problems, teachers trained once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gkdbench.data.splits import SplitTask
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import State
from gkdbench.protocol.view_io import LATER, TrainingBundle, read_bundle, read_later
from gkdbench.testing.problems import small_problem
from gkdbench.testing.runs import TracedRun, Workshop
from gkdbench.training.resolve import resolve


class Bench:
    """Runs methods on the small problems of `gkdbench.testing`."""

    def __init__(self, folder: Path) -> None:
        self.workshop = Workshop(folder)
        self._problems: dict[str, SplitTask] = {}

    def problem(self, setting: str) -> SplitTask:
        if setting not in self._problems:
            self._problems[setting] = small_problem(setting)
        return self._problems[setting]

    def given(self, setting: str) -> TrainingBundle:
        return read_bundle(self.workshop.view(self.problem(setting))[0])

    def later(self, setting: str, name: str) -> Inputs:
        """The graph called `name` that is read after ``fit``."""
        given = self.given(setting)
        return read_later(given, given.folder / LATER).graph(name)

    def run(self, name: str, setting: str = "tran", *, seed: int = 0, **overrides: Any) -> TracedRun:
        run = self.workshop.run(resolve(name, {"epochs": 4, **overrides}), self.problem(setting), seed=seed)
        assert run.outcome.status == "ok", run.outcome.traceback
        return run

    def final(self, name: str, setting: str = "tran", **options: Any) -> State:
        return self.run(name, setting, **options).final["model"]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """bench.run(method, setting, **overrides): a run with its teachers."""
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def adam_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """adam_steps(): how many optimiser steps were taken since the test began."""
    counted = [0]
    step = torch.optim.Adam.step

    def counting(self: Any, *arguments: Any) -> Any:
        counted[0] += 1
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", counting)
    yield lambda: counted[0]
