"""AE-KD: a student of several teachers, weighed so that their gradients do not pull against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeTable
from gkdbench.errors import UserError
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.capped_simplex import least_norm_weights
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import hinton
from gkdbench.training.method import Requirement
from gkdbench.training.types import NonNegativeFloat, PositiveFloat


@dataclass(frozen=True, kw_only=True)
class AEKD(SingleModelMethod):
    """``CE + gamma * sum_m a_m T^2 KL(p_m || p_S)``, a of least ``|sum_m a_m g_m|`` (Du et al. 2020, eqs. 5-8).

    g_m is the gradient of teacher m's term in the student's logits, ``0 <= a_m <= bound`` and ``sum a = 1``, solved
    again in every step. ``as_released`` averages g_m over the batch first, so that opposite items cancel.

    Args:
        teachers: their backbones, each in its standard configuration.
        tau: temperature T. gamma: weight of the teachers; 0 is the solo run, bit for bit.
        bound: C; with ``1 / M`` all teachers weigh the same, with 1 one of them may be followed alone.
        weights: "agreement", as above; the baselines "mean-loss", all a_m alike, and "mean-logit", one teacher whose
            logits are the mean.
    """

    name: ClassVar[str] = "aekd"
    paper: ClassVar[str] = (
        "Du, You, Li, Wu, Wang, Qian, Zhang, Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient "
        "Space"
    )
    year: ClassVar[int | None] = 2020
    repository: ClassVar[str] = "AnTuo1998/AE-KD"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    one_label: ClassVar[str] = "its weights are solved for in the gradient of one softmax over classes"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "gradients are compared item by item; the official code averages them over the batch first, where opposite "
        "ones "
        "cancel",
        "weights are the exact minimum; the official code calls a one-class SVM",
        "teachers are graph networks of different backbones; the official code's are image networks of one",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"gamma": (0.0,)}

    backbone: str = "gcn"
    teachers: Annotated[tuple[str, ...], Field(min_length=1, max_length=6)] = ("gcn", "gat", "sage")
    tau: PositiveFloat = 4.0
    gamma: NonNegativeFloat = 0.9
    bound: Annotated[float, Field(gt=0, le=1)] = 0.6
    weights: Literal["agreement", "mean-loss", "mean-logit"] = "agreement"

    def requires(self) -> Mapping[str, Requirement]:
        if len(set(self.teachers)) < len(self.teachers):
            raise UserError(f"teachers: expected different backbones, got {', '.join(self.teachers)}")
        return {name: Requirement("teacher", {"backbone": name}) for name in self.teachers}

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        logits = torch.stack([ctx.teachers[name].logits.value for name in self.teachers], dim=1)  # [N, M, C]
        disagreement = _Disagreement(self)
        transfer = Transfer(
            teacher=NodeTable(view.items, logits),
            soft=disagreement,
            label_weight=1.0,
            soft_weight=self.gamma,
        )
        fitted = train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)
        ctx.extra.update(disagreement.mean_weights())
        return fitted

    @property
    def label(self) -> str:
        teachers = " + ".join(name.upper() for name in self.teachers)
        return f"AE-KD ({self.weights}) of {teachers}, {self.model_label()}"


class _Disagreement:
    """The transfer loss (`gkdbench.training.distil.SoftLoss`), and the weights that it gave."""

    def __init__(self, method: AEKD) -> None:
        self._method, self._given = method, list[Tensor]()

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Scalar of ``student_logits: [B, C]`` and ``teacher_logits: [B, M, C]``."""
        tau = self._method.tau
        if self._method.weights == "mean-logit":
            return hinton(student_logits, teacher_logits.mean(1), tau=tau)
        weights = self._weights(student_logits.detach(), teacher_logits)
        self._given.append(weights)
        terms = [hinton(student_logits, one, tau=tau) for one in teacher_logits.unbind(1)]
        return (weights.to(student_logits) * torch.stack(terms)).sum()

    def _weights(self, student: Tensor, teachers: Tensor) -> Tensor:
        """[M] float64."""
        count = teachers.size(1)
        if self._method.weights == "mean-loss":
            return torch.full((count,), 1 / count, dtype=torch.float64)
        gradients = gradients_of(student, teachers, self._method.tau)
        if self._method.as_released:
            gradients = gradients.mean(0, keepdim=True)
        gram = torch.einsum("bmc,bnc->mn", gradients, gradients) / len(gradients)
        return torch.from_numpy(least_norm_weights(gram.cpu().numpy(), self._method.bound))

    def mean_weights(self) -> dict[str, float]:
        """``weight.<teacher>``: mean over steps."""
        if not self._given:
            return {}
        mean = np.mean([weights.numpy() for weights in self._given], axis=0)
        return {f"weight.{name}": float(value) for name, value in zip(self._method.teachers, mean, strict=True)}


def gradients_of(student: Tensor, teachers: Tensor, tau: float) -> Tensor:
    """[B, M, C] float64 ``tau (p_S - p_m)``: the gradient of ``tau^2 KL(p_m || p_S)`` of each item in its logits."""
    own = (student.double() / tau).softmax(1)
    return tau * (own[:, None] - (teachers.double() / tau).softmax(2))
