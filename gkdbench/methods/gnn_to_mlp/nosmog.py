"""NOSMOG: an MLP with positional encodings, similarity distillation and adversarial augmentation.

Order: compute encodings of the observed graph, build the student on features and encodings, then in every epoch per
batch a clean forward, the attack, the similarity term, and one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from gkdkernels import Features
from pydantic import Field
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.nn.model import Model
from gkdbench.protocol.view import Context, Fitted, Teacher, TrainView
from gkdbench.training.blocks.adversarial import adversarial_loss
from gkdbench.training.blocks.encoded_method import EncodedMethod
from gkdbench.training.blocks.encodings import encoded
from gkdbench.training.blocks.similarity import Similarity
from gkdbench.training.distil import labelled_batches
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.loop import train
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.steps import adam, batches, descend, mean_loss
from gkdbench.training.types import NonNegativeFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class NOSMOG(EncodedMethod, DistilledStudent):
    """``lamb * L(KL; V_obs) + (1 - lamb) * L(CE; V_L)`` with ``L(base; V) = base(x) + w * base(x + delta) + mu * S``
    (Tian et al. 2023, eq. 9).

    x are features with DeepWalk encodings next to them, KL is ``KL(p_T || p_S)`` at temperature 1, delta the
    perturbation of at most eps per entry that raises the base loss, S the mean squared difference of the Gram
    matrices of ``ReLU(W h_S)`` and of the teacher's last hidden layer on V. The attack makes the mini-batch's rows
    dense, which costs bag-of-words sets most of a step's time; ``adv_weight = 0`` leaves it out.

    ``as_released`` passes over the labelled nodes, then over all observed nodes, each with its own optimiser steps,
    also where lamb = 1 leaves the first a zero gradient, and trains the encodings with a hierarchical softmax.

    Args:
        kd_weight: lamb, weight of the teacher; 1 in the official code (the inverse of GLNN's lambda).
        adv_weight: w. adv_eps: eps. adv_steps: steps of eps / 4.
        similarity: mu.
    """

    name: ClassVar[str] = "nosmog"
    paper: ClassVar[str] = "Tian, Zhang, Guo, Zhang, Chawla, Learning MLPs on Graphs: A Unified View (NOSMOG)"
    year: ClassVar[int | None] = 2023
    arxiv: ClassVar[str] = "2208.10010"
    repository: ClassVar[str] = "meettyj/NOSMOG"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "features+encodings"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "one objective in every step; the official code steps on labels and on the teacher apart, also where lamb is 1",
        "the remainder after full batches is trained on; the official code drops it",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
        "running statistics change in clean forwards only; in the official code in attacks too",
        "encodings are trained by negative sampling; in the official code by a hierarchical softmax",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5, "num_walks": 1, "dim": 16}

    backbone: Literal["mlp"] = "mlp"
    kd_weight: UnitFloat = 1.0
    adv_weight: NonNegativeFloat = 0.1
    adv_eps: NonNegativeFloat = 0.04
    adv_steps: Annotated[int, Field(ge=0)] = 5
    similarity: NonNegativeFloat = 0.1

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        released = self.as_released
        encoder = self.encoder(view.inputs, ctx.seed, softmax="hierarchical" if released else "negative")
        config = self.backbone_config()
        model = build(config, view, seed=ctx.seed, extra=encoder.dim)
        student = encoded(as_predictor(config, model, view.num_classes), encoder)
        objective = _Objective(self, view, ctx.teachers["teacher"], model)
        optimiser = adam(objective.trained, lr=self.lr, weight_decay=self.weight_decay)
        inputs = student.prepared(view.inputs)
        passes = self._apart if released else self._together

        def update(batch: _Batch) -> float:
            items = torch.cat([batch.observed, view.train.position[batch.labelled]])
            return descend(model, optimiser, partial(objective, inputs.rows(NodeSet(view.items, items)), batch))

        def step(epoch: int) -> dict[str, float]:
            loss = mean_loss([update(batch) for batch in passes(view, model)])
            return {"loss": loss, **objective.means()}

        train(ctx, {"model": student}, step, epochs=self.epochs)
        return Fitted({"model": student})

    def _together(self, view: TrainView, model: Model) -> Iterator[_Batch]:
        """One pass over all observed nodes, labelled ones next to them where they have a weight."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        if self.kd_weight == 0:
            for labelled in batches(model, len(view.train), self.batch_size):
                yield _Batch(nothing, labelled)
            return
        labels = labelled_batches(view, model, self.batch_size)
        for batch in batches(model, len(everything), self.batch_size):
            yield _Batch(everything[batch], batch[:0] if self.kd_weight == 1 else next(labels))

    def _apart(self, view: TrainView, model: Model) -> Iterator[_Batch]:
        """The official code's two passes, whatever their weights."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        for labelled in batches(model, len(view.train), self.batch_size, drop_last=True):
            yield _Batch(nothing, labelled)
        for batch in batches(model, len(everything), self.batch_size, drop_last=True):
            yield _Batch(everything[batch], batch[:0])

    @property
    def label(self) -> str:
        return f"NOSMOG, {self.model_label()}"


class _Batch(NamedTuple):
    """What one step sees: observed items [B] (positions), and labelled ones [B'] (places in ``view.train``)."""

    observed: Tensor
    labelled: Tensor


class _Objective:
    """The loss of a step, and the mean of what each of its terms added to it.

    Attributes:
        trained: every module that the optimiser moves.
    """

    def __init__(self, method: NOSMOG, view: TrainView, teacher: Teacher, model: Model) -> None:
        self._method, self._view, self._teacher, self._model = method, view, teacher, model
        self._terms: dict[str, list[float]] = {}
        self._similarity: Similarity | None = None
        if method.similarity:
            widths = _hidden_width(method, teacher)
            self._similarity = Similarity(*widths, model.randomness).to(view.device)
        self.trained = nn.ModuleList([model, *([self._similarity] if self._similarity else [])])

    def __call__(self, rows: Features, batch: _Batch) -> Tensor:
        """Scalar; `rows` are the inputs [B + B', D] of the batch's observed, then labelled items."""
        method, model = self._method, self._model
        base = partial(self._base, batch)
        trace = model.trace(rows)
        loss = self._noted("base", base(trace.logits))
        if method.adv_weight:
            attacked = adversarial_loss(
                model,
                rows,
                lambda x: base(model(x)),
                eps=method.adv_eps,
                steps=method.adv_steps,
                freeze_stats=method.variant == "corrected",
            )
            loss = loss + self._noted("adversarial", method.adv_weight * attacked)
        if self._similarity:
            loss = loss + self._noted("similarity", method.similarity * self._alike(trace.hidden[-1], batch))
        return loss

    def _base(self, batch: _Batch, logits: Tensor) -> Tensor:
        """``lamb * KL + (1 - lamb) * CE`` of ``logits: [B + B', C]``."""
        cut, lamb, several = batch.observed.numel(), self._method.kd_weight, self._view.multi_label
        total = logits.new_zeros(())
        if cut:
            target = self._teacher.logits[NodeSet(self._view.items, batch.observed)]
            total = total + lamb * kl_to_teacher(logits[:cut], target, multi_label=several)
        if batch.labelled.numel():
            labels = self._view.labels[batch.labelled]
            total = total + (1 - lamb) * supervised(logits[cut:], labels, multi_label=several)
        return total

    def _alike(self, hidden: Tensor, batch: _Batch) -> Tensor:
        """The similarity loss of ``hidden: [B + B', H]``, over the pairs within either part."""
        assert self._similarity is not None and self._teacher.hidden is not None  # checked when it was made
        cut, lamb = batch.observed.numel(), self._method.kd_weight
        labelled = self._view.train.position[batch.labelled]
        total = hidden.new_zeros(())
        for weight, part, items in ((lamb, hidden[:cut], batch.observed), (1 - lamb, hidden[cut:], labelled)):
            if items.numel():
                target = self._teacher.hidden[NodeSet(self._view.items, items)]
                total = total + weight * self._similarity(part, target)
        return total

    def _noted(self, name: str, term: Tensor) -> Tensor:
        self._terms.setdefault(name, []).append(float(term.detach()))
        return term

    def means(self) -> dict[str, float]:
        """Term -> its mean contribution since the last call."""
        found = {name: mean_loss(values) for name, values in self._terms.items()}
        self._terms.clear()
        return found


def _hidden_width(method: NOSMOG, teacher: Teacher) -> tuple[int, int]:
    """Widths of the student's and the teacher's last hidden layer."""
    layers = method.model["layers"]
    if layers < 2 or teacher.hidden is None:
        lacking = "the student" if layers < 2 else "the teacher"
        raise UserError(
            f"nosmog: expected hidden layers to compare, got none: {lacking} has none; use two layers, or similarity=0"
        )
    return int(method.model["hidden"]), int(teacher.hidden.value.size(1))
