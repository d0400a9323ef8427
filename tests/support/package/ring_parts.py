"""A package of another author: a data set, a metric, a backbone, a method and the control that it must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gkdbench import Task
from gkdbench.metrics.metric import Metric, argmax, classes, matrix, probabilities
from gkdbench.nn.model import Backbone, Model
from gkdbench.nn.random import Randomness
from gkdbench.nn.sgc import SGCConfig
from gkdbench.training import Context, DistilledStudent, Fitted, TrainView, Transfer, kl_to_teacher, train_student


def ring() -> Task:
    """90 nodes of three classes, each joined to the next two of its class; features are noisy classes."""
    rng = np.random.default_rng(0)
    nodes = np.arange(90)
    pairs = np.concatenate([np.stack([nodes, (nodes + step) % 90]) for step in (3, 6)], axis=1)
    orders = [rng.permutation(90) for _ in range(2)]
    return Task.from_arrays(
        "ring",
        edge_index=np.concatenate([pairs, pairs[::-1]], axis=1),
        features=np.eye(3)[nodes % 3] + rng.normal(0, 1.0, (90, 3)),
        labels=nodes % 3,
        metric="balanced_accuracy",
        splits=[{"train": ids[:15], "val": ids[15:30], "test": ids[30:]} for ids in orders],
    )


@dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """Mean over classes of the share of right items."""

    name: str = "balanced_accuracy"

    def from_logits(self, logits: Any) -> Any:
        return argmax(matrix(logits, "logits"))

    def from_probs(self, probs: Any) -> Any:
        return argmax(probabilities(probs))

    def __call__(self, predictions: Any, labels: Any) -> float:
        predicted, known = classes(predictions, "predictions"), classes(labels, "labels")
        return float(np.mean([(predicted[known == label] == label).mean() for label in np.unique(known)]))


@dataclass(frozen=True, kw_only=True)
class FarConfig(Backbone):
    """A linear classifier of features propagated `reach` times."""

    name: ClassVar[str] = "far"
    paper: ClassVar[str] = "of this package"
    revision: ClassVar[int] = 1

    reach: int = 3

    @property
    def hops(self) -> int:
        return self.reach

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return SGCConfig(hops=self.reach).build(in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        return (nnz + self.reach * num_edges) * out_features


@dataclass(frozen=True, kw_only=True)
class Follower(DistilledStudent):
    """``0.5 CE + 0.5 KL``: an MLP that follows the far-sighted teacher."""

    name: ClassVar[str] = "follower"

    teacher: str = "far"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        transfer = Transfer(teacher=ctx.teachers["teacher"].logits, soft=kl_to_teacher, label_weight=0.5)
        return train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)


@dataclass(frozen=True, kw_only=True)
class Unmoved(DistilledStudent):
    """``CE``: the same loop with the transfer switched off; a control at ``weight = 0`` alone."""

    name: ClassVar[str] = "unmoved"
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"weight": (0.0,)}

    teacher: str = "far"
    weight: float = 0.0

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        teacher = ctx.teachers["teacher"].logits
        transfer = Transfer(teacher=teacher, soft=kl_to_teacher, label_weight=1 - self.weight)
        return train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)
