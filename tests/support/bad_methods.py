"""Methods that break one rule each; the method case must notice."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gkdbench.methods import Method
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView


class Linear(nn.Module):
    def __init__(self, view: TrainView, seed: int) -> None:
        super().__init__()
        shape = (view.num_features, view.num_classes)
        self.weight = nn.Parameter(torch.empty(shape).normal_(generator=Randomness(seed).initial("weight")))

    def forward(self, features: Tensor, graph: Any, segments: Any) -> Tensor:
        return features @ self.weight


@dataclass(frozen=True, kw_only=True)
class Honest(Method):
    """A linear model moved towards the mean features of its classes; `nudge` is what the others do wrong."""

    name: ClassVar[str] = "honest"
    paper: ClassVar[str] = "none: a toy"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5}

    epochs: int = 5
    lr: float = 0.1

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        model = Predictor(Linear(view, ctx.seed))
        means = torch.stack(
            [view.inputs.rows(view.train)[view.labels == c].mean(0) for c in range(view.num_classes)], 1
        )
        for epoch in range(1, self.epochs + 1):
            with torch.no_grad():
                model.module.weight.mul_(1 - self.lr).add_(self.lr * means)
                self.nudge(model.module.weight, view, ctx)
            ctx.monitor.report(epoch, {"model": model})
        return Fitted({"model": model})

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        """Nothing to see here."""


@dataclass(frozen=True, kw_only=True)
class Unread(Honest):
    """Has a field that nothing reads."""

    name: ClassVar[str] = "unread"
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class GlobalDraws(Honest):
    """Draws from the global generators."""

    name: ClassVar[str] = "global_draws"

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        weight.add_(0 * torch.rand(1) + 0 * random.random() + 0 * float(np.random.rand()))


@dataclass(frozen=True, kw_only=True)
class OutsideDraws(Honest):
    """Draws that derive from no seed."""

    name: ClassVar[str] = "outside_draws"

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        weight.add_(float(np.random.default_rng().random()))


@dataclass(frozen=True, kw_only=True)
class ValidationLearner(Honest):
    """Learns from validation labels."""

    name: ClassVar[str] = "validation_learner"

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        weight.add_(1e-3 * float(ctx.monitor._val_labels[:20].sum()))


@dataclass(frozen=True, kw_only=True)
class IndexReader(Honest):
    """Treats the first nodes in a way of their own."""

    name: ClassVar[str] = "index_reader"

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        features = view.inputs.features
        weight.add_(0.1 * features[:20].mean())  # type: ignore[union-attr, index]


class Leak:
    """What a broken harness would let through: set by the test, read by `LeakReader`."""

    labels: ClassVar[Tensor | None] = None
    features: ClassVar[Tensor | None] = None


@dataclass(frozen=True, kw_only=True)
class LeakReader(Honest):
    """Learns from labels or features that a broken harness left lying about."""

    name: ClassVar[str] = "leak_reader"

    def nudge(self, weight: Tensor, view: TrainView, ctx: Context) -> None:
        for left in (Leak.labels, Leak.features):
            if left is not None:
                weight.add_(1e-4 * float((left.double().flatten() * torch.arange(left.numel())).sum()))


@dataclass(frozen=True, kw_only=True)
class Bare(Honest):
    """Says nothing of where it comes from."""

    name: ClassVar[str] = "bare"
    paper: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class SeedBlind(Honest):
    """Ignores its seed."""

    name: ClassVar[str] = "seed_blind"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        ctx.seed = 0
        return super().fit(view, ctx)


ALL = [Honest, Unread, GlobalDraws, OutsideDraws, ValidationLearner, IndexReader, LeakReader, Bare, SeedBlind]
HERE = Path(__file__).stem
