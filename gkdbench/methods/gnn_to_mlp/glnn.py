"""GLNN: an MLP that learns a GNN teacher's soft labels.

Files that `fit` enters, in order: training/method.py, training/fields.py, training/models.py, nn/mlp.py, nn/model.py,
training/distil.py, nn/linear.py, nn/random.py, nn/parts.py, gkdkernels/graph.py, training/steps.py, training/solo.py,
training/loop.py, gkdkernels/core/dropout.py, training/losses.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.loop import train
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.solo import item_forward
from gkdbench.training.steps import adam, batches, descend, mean_loss
from gkdbench.training.types import PositiveFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class GLNN(DistilledStudent):
    """``lambda * CE(V_L) + (1 - lambda) * KL(p_T || p_S; V_obs)`` (Zhang et al. 2022, eq. 1) at temperature tau.

    ``as_released`` passes over the labelled nodes, then over all observed nodes, each with its own optimiser steps:
    with lambda = 0 the first pass still steps on a zero gradient (momentum and weight decay only).

    Args:
        label_weight: lambda; 0 in the official code. tau: 1 in the official code; others that train such a student have
            their own.
    """

    name: ClassVar[str] = "glnn"
    paper: ClassVar[str] = (
        "Zhang, Liu, Sun, Shah, Graph-less Neural Networks: Teaching Old MLPs New Tricks via Distillation"
    )
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2110.08727"
    repository: ClassVar[str] = "snap-research/graphless-neural-networks"
    licence: ClassVar[str] = "MIT"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "one objective in every step; the official code steps on labels and on the teacher apart, also where "
        "lambda is 0",
        "the remainder after full batches is trained on; the official code drops it",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    backbone: Literal["mlp"] = "mlp"
    label_weight: UnitFloat = 0.0
    tau: PositiveFloat = field(default=1.0, metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        if self.as_released:
            return self._fit_as_released(view, ctx)
        transfer = Transfer(
            teacher=ctx.teachers["teacher"].logits,
            soft=partial(kl_to_teacher, tau=self.tau, multi_label=view.multi_label),
            label_weight=self.label_weight,
        )
        return train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)

    def _fit_as_released(self, view: TrainView, ctx: Context) -> Fitted:
        config = self.backbone_config()
        model = build(config, view, seed=ctx.seed)
        optimiser = adam(model, lr=self.lr, weight_decay=self.weight_decay)
        student = as_predictor(config, model, view.num_classes)
        forward = item_forward(view, model, student)
        teacher = ctx.teachers["teacher"].logits[view.inputs.everything]
        everything = view.inputs.everything.position

        def on_labels(batch: Any) -> Any:
            logits = forward(view.train.position[batch])
            return self.label_weight * supervised(logits, view.labels[batch], multi_label=view.multi_label)

        def on_teacher(batch: Any) -> Any:
            logits = forward(everything[batch])
            return (1 - self.label_weight) * kl_to_teacher(
                logits, teacher[batch], tau=self.tau, multi_label=view.multi_label
            )

        def step(epoch: int) -> dict[str, float]:
            sums = {}
            for name, loss, count in (("ce", on_labels, len(view.train)), ("kl", on_teacher, len(everything))):
                steps = batches(model, count, self.batch_size, drop_last=True)
                sums[name] = mean_loss([descend(model, optimiser, partial(loss, batch)) for batch in steps])
            return {"loss": sum(sums.values()), **sums}

        train(ctx, {"model": student}, step, epochs=self.epochs)
        return Fitted({"model": student})

    @property
    def label(self) -> str:
        return f"GLNN, {self.model_label()}"
