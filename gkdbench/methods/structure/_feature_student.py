"""Students of a teacher's last hidden layer: their settings, and the objective that a method fills with one term.

Order: take the teacher's hidden features, build the student and the term's modules, then every epoch one step per batch
of labelled items on labels, term and KD.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from gkdkernels import CSRGraph
from torch import Tensor, nn

from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.hidden_features import (
    HiddenFeatureSchedule,
    StudentForward,
    hidden_layer,
    teacher_features,
    train_imitator,
)
from gkdbench.training.losses import hinton
from gkdbench.training.models import hidden_width
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, UnitFloat

PAIR_BYTES = 2**30
"""What the pairwise matrices of one step may take; more rows are sampled down to it."""


class FeatureTerm(nn.Module):
    """The loss of a student's features against a teacher's; its parameters are trained and not deployed.

    Attributes:
        noted: name -> number for ``ctx.extra``, of the last step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: dict[str, float] = {}

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, graph: CSRGraph | None) -> Tensor:
        """Scalar.

        Args:
            student: [M, H]. teacher: [M, H'], detached.
            rows: [R] int64, the rows that are compared.
            graph: over the M rows; None where they are graphs.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FeatureTaught(DistilledStudent):
    """``(1 - alpha) CE + alpha T^2 KL(p_T || p_S) + beta * term(h_S, h_T)`` of last hidden layers, before activation.

    Fields:
        beta: weight of the term. alpha, temperature: of the additional KD. With both weights 0 the run is the solo run.
        nodes: rows that are compared and distilled: every observed item, or the labelled ones, as in the official code.
            Graph tasks compare the graphs of the batch, as means over their nodes.
    """

    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"alpha": (0.0,), "beta": (0.0,)}

    backbone: str = "gcn"
    teacher: str = "gat"
    beta: NonNegativeFloat = 1.0
    alpha: UnitFloat = 0.0
    temperature: PositiveFloat = 4.0
    nodes: Literal["all", "train"] = "all"

    @abstractmethod
    def term(self, student: int, teacher: int, randomness: Randomness) -> FeatureTerm:
        """The term for a student and a teacher of these widths."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        features = teacher_features(ctx.teachers["teacher"], view)
        logits = ctx.teachers["teacher"].logits.value
        made: list[_Features] = []

        def objective(model: Model) -> _Features:
            made.append(_Features(self, view, model, features, logits))
            return made[0]

        schedule = HiddenFeatureSchedule(label_weight=1 - self.alpha, decay_projections=self.as_released)
        wanted = objective if self.beta or self.alpha else None
        fitted = train_imitator(view, ctx, self.backbone_config(), self.training_settings(), wanted, schedule)
        for one in made:
            ctx.extra.update(one.noted)
        return fitted

    @property
    def label(self) -> str:
        beside = " + KD" if self.alpha else ""
        return f"{self.name}{beside}, {self.model_label()}"


class _Features:
    """The objective: a `FeatureTerm`, and KD where it has a weight."""

    def __init__(self, method: FeatureTaught, view: TrainView, model: Model, features: Tensor, logits: Tensor) -> None:
        self._method, self._view, self._features, self._logits = method, view, features, logits
        self._term: FeatureTerm | None = None
        if method.beta:
            width = hidden_width(method.backbone_config())
            self._term = method.term(width, features.size(1), model.randomness).to(view.device)
        per_class = view.num_classes if method.as_released else 1
        self._kd = partial(hinton, tau=method.temperature, multi_label=view.multi_label, per_class=per_class)

    @property
    def noted(self) -> dict[str, float]:
        return self._term.noted if self._term else {}

    def modules(self) -> list[nn.Module]:
        """The term's projections."""
        return [self._term] if self._term else []

    def terms(self, epoch: int, answer: StudentForward) -> Mapping[str, Tensor]:
        """The weighted terms."""
        method, of_nodes = self._method, self._view.kind == "node"
        rows = torch.arange(answer.items.numel(), device=answer.items.device)
        if of_nodes and (method.as_released or method.nodes == "train"):
            rows = self._view.train.position
        found = {}
        if self._term:
            graph = self._view.inputs.graph if of_nodes else None
            teacher = self._features[answer.items]
            found["features"] = method.beta * self._term(hidden_layer(answer.hidden), teacher, rows, graph)
        if method.alpha:
            target = self._logits[answer.items][rows]
            found["kd"] = method.alpha * self._kd(answer.logits[rows], target)
        return found


def sampled(rows: Tensor, most: int, copies: int, randomness: Randomness) -> Tensor:
    """At most `most` of `rows` ([R] int64), and no more than `copies` matrices over their pairs have memory for.

    A step without need to choose takes all of them, in order; else they are drawn again in every step.
    """
    most = min(most, math.isqrt(PAIR_BYTES // (4 * copies)))
    if rows.numel() <= most:
        return rows
    generator = torch.Generator().manual_seed(randomness.key("pairs"))
    return rows[torch.randperm(rows.numel(), generator=generator)[:most].to(rows.device)]
