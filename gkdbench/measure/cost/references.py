"""What every time is taken in turns with: a plain MLP's answers, a plain GNN's epoch, on the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import TrainView
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, backbone_config, build, build_module, describe
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
    answers, epoch = _settings(kind)
    return describe(*answers), describe(*epoch)


def references(view: TrainView) -> References:
    """The references on the data of `view`, untrained."""
    _, epoch = _settings(view.kind)
    name, answers = answers_reference(
        view.kind, view.num_features, view.num_classes, view.inputs.edge_width, view.device
    )
    return References(answers, name, _epoch(epoch, view), describe(*epoch))


def answers_reference(
    kind: str, width: int, classes: int, edge_width: int, device: torch.device
) -> tuple[str, Predictor]:
    """(name, untrained predictor) that answers are timed against.

    Args:
        kind: of the tasks, "node" or "graph".
        width, classes, edge_width: columns of the features, of the logits and of the edge features.
    """
    answers, _ = _settings(kind)
    config = backbone_config(*answers)
    model = build_module(config, width, classes, edge_width, Randomness(0)).to(device)
    return describe(*answers), as_predictor(config, model, classes)


def _settings(kind: str) -> tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]:
    """Backbone and settings (of answers, of epochs)."""
    return (GRAPHS, GRAPHS) if kind == "graph" else (ANSWERS, EPOCH)


def _epoch(what: tuple[str, dict[str, Any]], view: TrainView) -> Callable[[], object]:
    config = backbone_config(*what)
    model = build(config, view, seed=0)
    predictor = as_predictor(config, model, view.num_classes)
    optimiser = adam(model, lr=0.01, weight_decay=0.0)
    model.train()

    def run() -> float:
        return descend(
            model,
            optimiser,
            lambda: supervised(predictor(view.inputs, view.train), view.labels, multi_label=view.multi_label),
        )

    return run
