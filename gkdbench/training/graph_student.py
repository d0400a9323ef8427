"""An MLP on nodes with a readout that learns to classify graphs from labels and from a frozen GNN."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.nn.model import Model, Trace
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.encodings import encoded
from gkdbench.training.blocks.laplacian import LaplacianEncoder
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.loop import train
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.schedules import LRSchedule, schedule
from gkdbench.training.solo import train_solo
from gkdbench.training.steps import adam, batches, descend, mean_loss
from gkdbench.training.types import NonNegativeFloat, PositiveFloat

RELEASED_RATE = 8e-3
"""The official code ignores its ``--lr`` and trains with this one."""


@dataclass(eq=False)
class GraphStructureTerm:
    """What a student learns from a teacher in addition to its logits.

    Args:
        terms: (the student's trace on a batch, the batch, its positions in the training graphs [B]) -> weighted
            terms of the loss by name.
        modules: trained with the student, and left behind.
    """

    terms: Callable[[Trace, Inputs, Tensor], Mapping[str, Tensor]]
    modules: nn.Module


@dataclass(frozen=True, kw_only=True)
class GraphStudent(DistilledStudent):
    """A graph-level student.

    Fields:
        kl_weight: of ``KL(softmax(z_T) || softmax(z_S))``; labels have weight 1.
        encoding: columns of Laplacian eigenvectors next to the features; 0: none.
        schedule: of the learning rate.
    """

    backbone: Literal["graph_mlp"] = "graph_mlp"
    teacher: str = "gin"
    lr: PositiveFloat = RELEASED_RATE
    kl_weight: NonNegativeFloat = 1.0
    encoding: Annotated[int, Field(ge=0)] = 0
    schedule: LRSchedule = "plateau"
    model: Mapping[str, Any] = field(default_factory=dict)

    def encoder(self) -> LaplacianEncoder | None:
        """What prepares the inputs."""
        return LaplacianEncoder(self.encoding) if self.encoding else None

    def rate(self) -> float:
        """The learning rate that is used."""
        return RELEASED_RATE if self.as_released else self.lr

    def student_label(self) -> str:
        """The student in a table: ``MLP 64 + LaPE``."""
        kind = "GA-MLP" if self.model.get("hops") else "MLP"
        return f"{kind} {self.model['hidden']}{' + LaPE' if self.encoding else ''}"


def train_graph_student(
    method: GraphStudent, view: TrainView, ctx: Context, structure: Callable[[Model], GraphStructureTerm] | None = None
) -> Fitted:
    """Train on ``CE + kl_weight * KL + terms``, each a mean over the batch; a term of weight 0 is not computed.

    Args:
        structure: makes the further terms for the student's module. Without it and with ``kl_weight = 0`` this is the
            solo run, bit for bit.
    """
    config, encoder = method.backbone_config(), method.encoder()
    hard = partial(supervised, multi_label=view.multi_label)
    if structure is None and not method.kl_weight:
        settings = method.training_settings(lr=method.rate(), schedule=method.schedule)
        return train_solo(view, ctx, config, settings, hard, encoder)
    model = build(config, view, seed=ctx.seed, extra=encoder.dim if encoder else 0)
    predictor = as_predictor(config, model, view.num_classes)
    if encoder:
        predictor = encoded(predictor, encoder)
    more = structure(model) if structure else None
    trained = nn.ModuleList([model, *([more.modules] if more else [])])
    optimiser = adam(trained, lr=method.rate(), weight_decay=method.weight_decay)
    ready, teacher = predictor.prepared(view.inputs), ctx.teachers["teacher"].logits
    reported: dict[str, list[float]] = defaultdict(list)

    def loss(places: Tensor) -> Tensor:
        items = view.train.position[places]
        batch = ready.take(items)
        trace = model.trace(*batch.arguments(model))
        parts = {"ce": hard(trace.logits, view.labels[places])}
        if method.kl_weight:
            soft = kl_to_teacher(trace.logits, teacher[NodeSet(view.items, items)], multi_label=view.multi_label)
            parts["kl"] = method.kl_weight * soft
        if more:
            parts |= more.terms(trace, batch, items)
        for name, part in parts.items():
            reported[name].append(float(part.detach()))
        return torch.stack(list(parts.values())).sum()

    def step(epoch: int) -> dict[str, float]:
        reported.clear()
        drawn = batches(model, len(view.train), method.batch_size)
        losses = [descend(model, optimiser, partial(loss, places)) for places in drawn]
        return {"loss": mean_loss(losses), **{name: mean_loss(values) for name, values in reported.items()}}

    train(ctx, {"model": predictor}, step, epochs=method.epochs, after=schedule(method.schedule, optimiser))
    return Fitted({"model": predictor})
