"""my_method: an MLP that learns from labels and from a GNN teacher's soft labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gkdbench.training import (
    Context,
    DistilledStudent,
    Fitted,
    TrainView,
    Transfer,
    UnitFloat,
    kl_to_teacher,
    train_student,
)


@dataclass(frozen=True, kw_only=True)
class MyMethod(DistilledStudent):
    """``w CE(y, p_S; V_L) + (1 - w) KL(p_T || p_S; V_obs)``: labels and teacher in one step.

    Args:
        label_weight: w, how much the labels count.
    """

    name: ClassVar[str] = "my_method"
    paper: ClassVar[str] = "Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network"
    year: ClassVar[int | None] = 2015
    arxiv: ClassVar[str] = "1503.02531"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    label_weight: UnitFloat = 0.5

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        transfer = Transfer(
            teacher=ctx.teachers["teacher"].logits,  # [N_obs, C]
            soft=kl_to_teacher,
            label_weight=self.label_weight,
        )
        return train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)

    @property
    def label(self) -> str:
        return f"my_method, {self.model_label()}"
