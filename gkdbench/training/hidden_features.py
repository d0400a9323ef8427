"""One student trained on labels and on a frozen teacher's hidden features, with or without its logits.

Order: build the student, then the objective's modules, then in every epoch one step per batch of labelled items on
labels and the objective's terms; at the end the share of the terms in the gradient is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from gkdkernels import CSRGraph, segment_mean
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.model import Backbone, Model, Trace
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import Context, Fitted, Teacher, TrainView
from gkdbench.training.blocks.gradient_share import GradientShare, log_gradient_shares
from gkdbench.training.blocks.logit_threshold import logit_threshold
from gkdbench.training.graph_batches import graph_batches
from gkdbench.training.loop import train
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.solo import TrainingSettings
from gkdbench.training.steps import adam, batches, descend, mean_loss


@dataclass(frozen=True, slots=True)
class StudentForward:
    """One forward pass of the student, row by row.

    Args:
        items: [M] int64 positions of the rows: all nodes in order, those of some graphs, or a batch of graphs.
        logits: [M, C].
        hidden: per hidden layer [M, H] pre-activations; of a graph their mean over its nodes.
        graph: over the M rows; None where they are graphs.
    """

    items: Tensor
    logits: Tensor
    hidden: tuple[Tensor, ...]
    graph: CSRGraph | None


class HiddenFeatureObjective(Protocol):
    """What the student learns in addition to labels."""

    def modules(self) -> list[nn.Module]:
        """What is trained with the student and not deployed (projections)."""

    def terms(self, epoch: int, answer: StudentForward) -> Mapping[str, Tensor]:
        """Name -> weighted scalar; a term that is off in this epoch is absent."""


@dataclass(frozen=True, kw_only=True)
class HiddenFeatureSchedule:
    """How a student is trained, apart from its optimiser.

    Args:
        label_weight: of the supervised loss.
        every: epochs between evaluations.
        store_on_loss: a state is stored on a lower training loss too (`gkdbench.training.loop.train`).
        logit_threshold: a label is predicted where the logit is 0.5 or more (`training.blocks.logit_threshold`).
        decay_projections: weight decay acts on modules that are not deployed too.
    """

    label_weight: float = 1.0
    every: int = 1
    store_on_loss: bool = False
    logit_threshold: bool = False
    decay_projections: bool = False


def train_imitator(
    view: TrainView,
    ctx: Context,
    config: Backbone,
    settings: TrainingSettings,
    objective_of: Callable[[Model], HiddenFeatureObjective] | None,
    schedule: HiddenFeatureSchedule | None = None,
) -> Fitted:
    """Train `config` on labels and on an objective of its hidden features; the model is called "model".

    One optimiser step a batch of labelled items (or of graphs); every term is a mean over its own rows. Without an
    objective this is the solo run, bit for bit. The share of its terms in the gradient goes to ``ctx.extra`` and, where
    it vanishes, to ``ctx.flags``.

    Args:
        objective_of: the objective of the student that it is given, or None.
        schedule: None for a plain one.
    """
    plan = schedule or HiddenFeatureSchedule()
    model = build(config, view, seed=ctx.seed)
    objective = objective_of(model) if objective_of else None
    predictor = as_predictor(config, model, view.num_classes)
    if plan.logit_threshold and view.multi_label:
        predictor = logit_threshold(predictor)
    modules = objective.modules() if objective else []
    decayed = list(model.parameters()) if modules and not plan.decay_projections else None
    trained = nn.ModuleList([model, *modules])
    optimiser = adam(trained, lr=settings.lr, weight_decay=settings.weight_decay, decayed=decayed)
    share = GradientShare(model.parameters()) if objective else None

    def step(epoch: int) -> dict[str, float]:
        traces: dict[str, list[float]] = {}

        def loss(read: _Step) -> Tensor:
            answer = student_forward(model, read.inputs, read.items)
            hard = supervised(answer.logits[read.rows], read.labels, multi_label=view.multi_label)
            task = hard if plan.label_weight == 1 else plan.label_weight * hard
            terms = objective.terms(epoch, answer) if objective else {}
            for name, term in {"task": task, **terms}.items():
                traces.setdefault(name, []).append(float(term.detach()))
            if not terms:
                return task
            transfer = torch.stack(list(terms.values())).sum()
            if share:
                share.look(epoch, task, transfer)
            return task + transfer

        values = [descend(model, optimiser, partial(loss, read)) for read in _steps(view, model, settings)]
        found = {"loss": mean_loss(values), **{name: mean_loss(trace) for name, trace in traces.items()}}
        return found | ({"gradient_share": share.value} if share else {})

    losses = {"model": "loss"} if plan.store_on_loss else None
    train(ctx, {"model": predictor}, step, epochs=settings.epochs, every=plan.every, losses=losses)
    log_gradient_shares(ctx, [share] if share else [])
    return Fitted({"model": predictor})


@dataclass(frozen=True, eq=False, slots=True)
class _Step:
    """What one step reads: inputs, the position of each of their items, which of these are labelled, and how."""

    inputs: Inputs
    items: Tensor
    rows: Tensor
    labels: Tensor


def _steps(view: TrainView, model: Model, settings: TrainingSettings) -> Iterator[_Step]:
    if settings.graphs_per_step is not None:
        for part in graph_batches(view, model, settings.graphs_per_step):
            yield _Step(part.inputs, part.nodes, part.rows, part.labels)
        return
    for batch in batches(model, len(view.train), settings.batch_size):
        items, labels = view.train.position[batch], view.labels[batch]
        if view.kind == "graph":
            yield _Step(view.inputs.take(items), items, torch.arange(batch.numel()), labels)
        else:
            yield _Step(view.inputs, view.inputs.everything.position, items, labels)


def student_forward(model: Model, inputs: Inputs, items: Tensor) -> StudentForward:
    """The student's forward pass on `inputs`, whose items have the positions `items` ([M] int64)."""
    trace: Trace = model.trace(*inputs.arguments(model))
    if inputs.segments is None:
        return StudentForward(items, trace.logits, trace.hidden, inputs.graph)
    means = tuple(segment_mean(h, inputs.segments) for h in trace.hidden)
    return StudentForward(items, trace.logits, means, None)


def teacher_features(teacher: Teacher, view: TrainView) -> Tensor:
    """[M, H'] last hidden features of the frozen teacher on all observed items; of a graph their mean over its nodes.

    Raises:
        UserError: the teacher has no hidden layer.
    """
    if teacher.hidden is None:
        raise UserError(
            "expected a teacher with a hidden layer to imitate, got none; give it two layers (a recipe of `teacher`)"
        )
    hidden = teacher.hidden.value.detach()
    return hidden if view.inputs.segments is None else segment_mean(hidden, view.inputs.segments)


def hidden_layer(answer_hidden: tuple[Tensor, ...], layer: int = -1) -> Tensor:
    """Hidden layer `layer` of the student (from 0; -1: the last).

    Raises:
        UserError: the student has no such layer.
    """
    if not -len(answer_hidden) <= layer < len(answer_hidden):
        raise UserError(
            f"expected a hidden layer {layer} to imitate the teacher, got: the student has {len(answer_hidden)} hidden "
            f"layers; give the model more layers"
        )
    return answer_hidden[layer]
