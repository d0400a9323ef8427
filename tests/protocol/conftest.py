"""Small problems, their views on disk, and a Monitor whose predictor says what the test tells it to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from gkdkernels.graph import CSRGraph
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.data.splits import SplitTask
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.monitor import EpochResult, Monitor, ScoredSet
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.renumbering import renumbered
from gkdbench.protocol.view_io import write_bundle
from gkdbench.testing.problems import small_problem


@dataclass(frozen=True, eq=False)
class Ready:
    """A problem, its evaluation_graphs and its bundle folder."""

    problem: SplitTask
    evaluation_graphs: EvaluationGraphs
    folder: Path

    @cached_property
    def handed(self) -> EvaluationGraphs:
        """The graphs under the numbers that a method sees."""
        return renumbered(self.evaluation_graphs, self.problem).graphs


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ready]:
    """ready(setting): the small problem of that setting with its view on disk, made once."""
    made: dict[str, Ready] = {}

    def of(setting: str) -> Ready:
        if setting not in made:
            problem = small_problem(setting)
            folder = tmp_path_factory.mktemp("views") / setting
            made[setting] = Ready(problem, write_bundle(problem, folder), folder)
        return made[setting]

    return of


class Scripted(nn.Module):
    """Answers with whatever `logits` ([N, C]) is now; `weight` tells states apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.logits: Any = None

    def forward(self, features: Tensor, graph: CSRGraph | None, segments: Tensor | None) -> Any:
        return self.logits


class Stage:
    """A Monitor over six items of two classes: 0-3 validate (labels 0 0 1 1), 4-5 are watched.

    `score(epoch, right)` reports predictions of which `right` of the four validation items are right.
    """

    def __init__(self, scratch: Path, **options: Any) -> None:
        space = Space("six", torch.arange(6))
        edges = CSRGraph.from_edge_index(torch.stack([torch.arange(6)] * 2), 6, True)
        self.inputs = Inputs(space, space, edges, torch.ones(6, 1))
        self.scratch = scratch
        self.models = {name: Predictor(Scripted()) for name in options.pop("names", ["model"])}
        self.monitor = Monitor(
            graphs={"observed": self.inputs},
            val_graph="observed",
            val_items=NodeSet(space, torch.arange(4)),
            val_labels=torch.tensor([0, 0, 1, 1]),
            scored_sets=[ScoredSet("tran", "observed", NodeSet(space, torch.tensor([4, 5])), live=True)],
            metric=options.pop("metric", "accuracy"),
            num_classes=2,
            scratch=scratch,
            **options,
        )

    def logits(self, right: int) -> Tensor:
        truth = torch.tensor([0, 0, 1, 1, 0, 1])
        answer = torch.where(torch.arange(6) < right, truth, 1 - truth)
        return nn.functional.one_hot(answer, 2).float()

    def score(self, epoch: int, right: int | Mapping[str, int], **options: Any) -> EpochResult:
        for name, model in self.models.items():
            model.module.logits = self.logits(right if isinstance(right, int) else right[name])
            model.module.weight.data.fill_(epoch)
        return self.monitor.report(epoch, self.models, **options)


@pytest.fixture
def monitor_of(tmp_path: Path) -> Callable[..., Stage]:
    """monitor_of(patience=..., ties=..., names=[...]): a Stage."""
    return lambda **options: Stage(tmp_path, **options)
