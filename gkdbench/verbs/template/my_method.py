"""my_method: an MLP that learns from labels and from a GNN teacher's soft labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.loop import train
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.solo import item_forward
from gkdbench.training.steps import adam, batches, descend, mean_loss
from gkdbench.training.types import UnitFloat


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
        config = self.backbone_config()
        model = build(config, view, seed=ctx.seed)
        optimiser = adam(model, lr=self.lr, weight_decay=self.weight_decay)
        student = as_predictor(config, model, view.num_classes)
        forward = item_forward(view, model, student)
        everything = view.inputs.everything.position  # [N_obs]
        teacher = ctx.teachers["teacher"].logits[view.inputs.everything]  # [N_obs, C]

        def loss(batch: Tensor) -> Tensor:
            """The objective on items ``everything[batch]`` ([B]) and on all labelled ones."""
            logits = forward(torch.cat([everything[batch], view.train.position]))
            imitated, labelled = logits[: len(batch)], logits[len(batch) :]
            hard, soft = supervised(labelled, view.labels), kl_to_teacher(imitated, teacher[batch])
            return self.label_weight * hard + (1 - self.label_weight) * soft

        def step(epoch: int) -> dict[str, float]:
            """One epoch; the shared loop reports to the Monitor and stops when it decides so."""
            drawn = batches(model, len(everything), self.batch_size)
            return {"loss": mean_loss([descend(model, optimiser, partial(loss, batch)) for batch in drawn])}

        train(ctx, {"model": student}, step, epochs=self.epochs)
        return Fitted({"model": student})

    @property
    def label(self) -> str:
        return f"my_method, {self.model_label()}"
