"""What every time is taken in turns with: a plain MLP's answers, a plain GNN's epoch, on the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gkdbench.nn.model import Backbone
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import TrainView
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, backbone_config, build, describe
from gkdbench.training.steps import adam, descend

ANSWERS: tuple[str, dict[str, Any]] = ("mlp", {"layers": 2, "hidden": 128})
EPOCH: tuple[str, dict[str, Any]] = ("gcn", {"layers": 2, "hidden": 64})
GRAPHS: tuple[str, dict[str, Any]] = ("gin", {})
"""On graph tasks, for answers and epochs."""


@dataclass(frozen=True, slots=True)
class References:
    """The references of a data set.

    Args:
        answers: an untrained predictor; `answers_name` says which.
        epoch: one full-batch epoch of training; `epoch_name` says of what.
    """

    answers: Predictor
    answers_name: str
    epoch: Callable[[], object]
    epoch_name: str


def reference_names(kind: str) -> tuple[str, str]:
    """(of answers, of epochs) on tasks of a kind."""
    answers, epoch = (GRAPHS, GRAPHS) if kind == "graph" else (ANSWERS, EPOCH)
    return describe(*answers), describe(*epoch)


def references(view: TrainView) -> References:
    """The references on the data of `view`, untrained."""
    answers, epoch = (GRAPHS, GRAPHS) if view.kind == "graph" else (ANSWERS, EPOCH)
    names = reference_names(view.kind)
    return References(_predictor(answers, view)[1], names[0], _epoch(epoch, view), names[1])


def _predictor(what: tuple[str, dict[str, Any]], view: TrainView) -> tuple[Any, Predictor]:
    config: Backbone = backbone_config(*what)
    model = build(config, view, seed=0)
    return model, as_predictor(config, model, view.num_classes)


def _epoch(what: tuple[str, dict[str, Any]], view: TrainView) -> Callable[[], object]:
    model, predictor = _predictor(what, view)
    optimiser = adam(model, lr=0.01, weight_decay=0.0)
    model.train()

    def run() -> float:
        return descend(
            model,
            optimiser,
            lambda: supervised(predictor(view.inputs, view.train), view.labels, multi_label=view.multi_label),
        )

    return run
