"""One student trained on labels and on a frozen teacher's logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable
from gkdbench.nn.model import Backbone, Model
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.graph_batches import GraphBatch, graph_batches
from gkdbench.training.loop import train
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.solo import TrainingSettings, item_forward, train_solo
from gkdbench.training.steps import adam, batches, descend, endless_batches, mean_loss

SoftLoss = Callable[[Tensor, Tensor], Tensor]
"""(student logits [M, C], the teacher's rows for them: logits [M, C], or what its table holds) -> scalar."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What the student learns in addition to labels.

    Args:
        teacher: logits [N, C] on the observed items.
        soft: the transfer loss.
        label_weight: lambda; the loss is ``lambda * CE(V_L) + (1 - lambda) * soft``. 1 is the solo run, bit for bit.
        soft_weight: overrides 1 - lambda; with lambda = 1, 0 is the solo run.
        nodes: items of the transfer loss: every observed one, or the labelled ones.
    """

    teacher: NodeTable
    soft: SoftLoss
    label_weight: float
    nodes: Literal["all", "train"] = "all"
    soft_weight: float | None = None


def train_student(
    view: TrainView, ctx: Context, config: Backbone, settings: TrainingSettings, transfer: Transfer
) -> Fitted:
    """Train `config` with ``lambda * CE + (1 - lambda) * soft``: one objective in every step, each term a mean over
    its own rows; a term of weight 0 is not computed.

    Example:
        >>> from gkdbench.testing import small_run
        >>> from gkdbench.training import backbone_config, kl_to_teacher
        >>> view, ctx = small_run("glnn")  # with a small trained teacher
        >>> settings = TrainingSettings(lr=0.01, weight_decay=5e-4, epochs=3)
        >>> transfer = Transfer(teacher=ctx.teachers["teacher"].logits, soft=kl_to_teacher, label_weight=0.5)
        >>> fitted = train_student(view, ctx, backbone_config("mlp", {"hidden": 8}), settings, transfer)
        >>> fitted.predictors["model"].needs  # an MLP reads features alone
        'features'
    """
    hard = partial(supervised, multi_label=view.multi_label)
    weight = transfer.label_weight
    soft_weight = 1 - weight if transfer.soft_weight is None else transfer.soft_weight
    if weight == 1 and soft_weight == 0:
        return train_solo(view, ctx, config, settings, hard)
    model = build(config, view, seed=ctx.seed)
    optimiser = adam(model, lr=settings.lr, weight_decay=settings.weight_decay)
    predictor = as_predictor(config, model, view.num_classes)
    forward = item_forward(view, model, predictor, settings.fanouts)
    everything = view.inputs.everything.position
    pool = everything if transfer.nodes == "all" else view.train.position

    def loss(soft_items: Tensor, labelled: Tensor) -> Tensor:
        logits = forward(torch.cat([soft_items, view.train.position[labelled]]))
        split = soft_items.numel()
        target = transfer.teacher[NodeSet(view.items, soft_items)]
        total = soft_weight * transfer.soft(logits[:split], target)
        return total + weight * hard(logits[split:], view.labels[labelled]) if weight else total

    def of_graphs(part: GraphBatch) -> Tensor:
        logits = predictor(part.inputs, part.inputs.everything)
        soft_rows = slice(None) if transfer.nodes == "all" else part.rows
        target = transfer.teacher[NodeSet(view.items, part.nodes[soft_rows])]
        total = soft_weight * transfer.soft(logits[soft_rows], target)
        return total + weight * hard(logits[part.rows], part.labels) if weight else total

    def step(epoch: int) -> dict[str, float]:
        if settings.graphs_per_step is not None:
            parts = graph_batches(view, model, settings.graphs_per_step)
            return {"loss": mean_loss([descend(model, optimiser, partial(of_graphs, part)) for part in parts])}
        labels = labelled_batches(view, model, settings.batch_size) if weight else None
        losses = []
        for batch in batches(model, pool.numel(), settings.batch_size):
            labelled = next(labels) if labels else batch[:0]
            losses.append(descend(model, optimiser, partial(loss, pool[batch], labelled)))
        return {"loss": mean_loss(losses)}

    train(ctx, {"model": predictor}, step, epochs=settings.epochs)
    return Fitted({"model": predictor})


def labelled_batches(view: TrainView, model: Model, size: int | None) -> Iterator[Tensor]:
    """Batches of labelled items without end: places [B] in ``view.train``."""
    return endless_batches(model, len(view.train), size)
