"""VQGraph: an MLP that learns a tokenizer's soft labels and how near each node is to its codes.

Order: rebuild the tokenizer and compute its hidden features once, then in every epoch one step per batch of observed
nodes on tokens, soft labels and labels (as released: a pass for each).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from gkdkernels.graph import tensor_rows
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Model
from gkdbench.nn.vq import FEW, VQ, cosine_scores, distance_scores
from gkdbench.protocol.view import Context, Fitted, Teacher, TrainView
from gkdbench.training.distil import labelled_batches
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.loop import train
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.method import Requirement
from gkdbench.training.models import as_predictor, build, load_teacher_model
from gkdbench.training.solo import train_solo
from gkdbench.training.steps import adam, batches, descend, mean_loss
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat

SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine_scores, "distance": distance_scores}
KEPT_SCORES = 1 << 27
"""So many numbers, half a gigabyte: 5,000 codes of up to 26,000 nodes."""


@dataclass(frozen=True, kw_only=True)
class VQGraph(SingleModelMethod):
    """``lambda CE(V_L) + (1 - lambda) KL(p_T || p_S) + w T^2 KL(softmax(s_T / T) || softmax(s_S / T))``
    (Yang et al. 2024), the last two over all observed nodes.

    s are scores of a node against the tokenizer's codes: of its hidden layer, and of a linear map of the student's
    last hidden layer, which is used for nothing else.

    With several labels per item the CE is the BCE over known ones, the KL of answers the mean of the labels'.

    ``as_released`` scores the teacher by cosine and the student by negative distance, passes the teacher's
    probabilities for log-probabilities (so that its gradient is that of a uniform target), and takes three passes an
    epoch, each with its own optimiser steps, the labels' too where lambda = 0.

    Args:
        label_weight: lambda. token_weight: w; 1e-8 in the official code. tau: T.
        score: of both sides: "distance" (negative, Euclidean) or "cosine".
        codes: in the tokenizer's codebook.
    """

    name: ClassVar[str] = "vqgraph"
    paper: ClassVar[str] = "Yang, Tian, Xu, Liu, Hong, Qu, Zhang, Cui, Zhang, Leskovec, VQGraph"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2308.02117"
    repository: ClassVar[str] = "YangLing0818/VQGraph"
    licence: ClassVar[str] = "none stated"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "an epoch is selected on validation; the transductive official code keeps the best test epoch: see the audit",
        "the KL of tokens is a true one; the official code passes probabilities for log-probabilities",
        "both sides of it are scored alike; in the official code by cosine and by distance",
        "one objective in every step; the official code takes three passes, each with its own steps",
        "the remainder after full batches is trained on; the official code drops it",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
        "the student's code is a map of its hidden layer before dropout; in the official code after",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10, "codes": 16}

    backbone: Literal["mlp"] = "mlp"
    label_weight: UnitFloat = 0.0
    token_weight: NonNegativeFloat = 1e-8
    tau: PositiveFloat = 4.0
    score: Literal["distance", "cosine"] = "distance"
    codes: PositiveInt = 5000

    def requires(self) -> Mapping[str, Requirement]:
        return {"teacher": Requirement("vqgraph_teacher", {"model": {"codes": self.codes}, "variant": self.variant})}

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config, released = self.backbone_config(), self.as_released
        if self.label_weight == 1 and not self.token_weight and not released:
            hard = partial(supervised, multi_label=view.multi_label)
            return train_solo(view, ctx, config, self.training_settings(), hard)
        model = build(config, view, seed=ctx.seed)
        student = as_predictor(config, model, view.num_classes)
        objective = _Objective(self, view, ctx.teachers["teacher"], model)
        optimiser = adam(objective.trained, lr=self.lr, weight_decay=self.weight_decay)
        passes = self._apart if released else self._together

        def step(epoch: int) -> dict[str, float]:
            losses = [descend(model, optimiser, partial(objective, batch)) for batch in passes(view, model)]
            return {"loss": mean_loss(losses), **objective.means()}

        train(ctx, {"model": student}, step, epochs=self.epochs)
        return Fitted({"model": student})

    def _together(self, view: TrainView, model: Model) -> Iterator[_Batch]:
        labels = labelled_batches(view, model, self.batch_size)
        for observed in batches(model, len(view.items), self.batch_size):
            yield _Batch(observed, next(labels) if self.label_weight else observed[:0], ("tokens", "kl", "ce"))

    def _apart(self, view: TrainView, model: Model) -> Iterator[_Batch]:
        """Tokens, labels, soft labels: a pass each, whatever their weights."""
        observed = partial(batches, model, len(view.items), self.batch_size, drop_last=True)
        for batch in observed():
            yield _Batch(batch, batch[:0], ("tokens",))
        for batch in batches(model, len(view.train), self.batch_size, drop_last=True):
            yield _Batch(batch[:0], batch, ("ce",))
        for batch in observed():
            yield _Batch(batch, batch[:0], ("kl",))

    @property
    def label(self) -> str:
        return f"VQGraph, {self.model_label()}"


class _Batch(NamedTuple):
    """What one step sees: observed nodes [B], labelled ones [B'] (places in ``view.train``), the terms of its loss."""

    observed: Tensor
    labelled: Tensor
    terms: tuple[str, ...]


class _Objective:
    """The loss of a step, and the mean of what each of its terms added to it.

    Attributes:
        trained: every module that the optimiser moves.
    """

    def __init__(self, method: VQGraph, view: TrainView, teacher: Teacher, model: Model) -> None:
        self._method, self._view, self._model = method, view, model
        self._released = method.as_released
        self._logits = teacher.logits[view.inputs.everything]
        self._noted: dict[str, list[float]] = {}
        self._map: FeatureLinear | None = None
        if method.token_weight:
            if method.model["layers"] < 2:
                raise UserError("vqgraph: expected a student with a hidden layer, got none; give it two layers")
            tokenizer = load_teacher_model(teacher, view)
            if not isinstance(tokenizer, VQ):
                raise UserError(f"vqgraph: expected a teacher with a codebook, got {type(tokenizer).__name__}")
            with torch.no_grad():
                self._h = tokenizer.encoded(view.inputs.features, view.inputs.graph)
            self._codes = tokenizer.codes
            self._taught = self._scores_of_teacher()
            width = int(method.model["hidden"])
            randomness = model.randomness
            own = FeatureLinear(width, self._h.size(1), name="code", randomness=randomness, init="torch")
            self._map = own.to(view.device)
        self.trained = nn.ModuleList([model, *([self._map] if self._map else [])])

    def __call__(self, batch: _Batch) -> Tensor:
        method, view = self._method, self._view
        items = torch.cat([batch.observed.to(view.device), view.train.position[batch.labelled]])
        cut, observed = batch.observed.numel(), batch.observed
        trace = self._model.trace(view.inputs.rows(NodeSet(view.items, items)))
        total = trace.logits.new_zeros(())
        if "tokens" in batch.terms and self._map is not None:
            own = self._map(trace.hidden[-1][:cut].relu())
            total = total + self._note("tokens", method.token_weight * self._tokens(own, observed))
        if "kl" in batch.terms and (method.label_weight < 1 or self._released):
            kl = kl_to_teacher(trace.logits[:cut], self._logits[observed], multi_label=view.multi_label)
            total = total + self._note("kl", (1 - method.label_weight) * kl)
        if "ce" in batch.terms and (method.label_weight or self._released):
            ce = supervised(trace.logits[cut:], view.labels[batch.labelled], multi_label=view.multi_label)
            total = total + self._note("ce", method.label_weight * ce)
        return total

    def _tokens(self, own: Tensor, observed: Tensor) -> Tensor:
        """The loss of the student's ``own: [B, D]`` against the tokenizer's hidden features of `observed` [B]."""
        tau = self._method.tau
        kept = self._taught
        taught = self._score(self._h[observed], self._codes) if kept is None else tensor_rows(kept, observed)
        if self._released:
            return released_token_loss(distance_scores(own, self._codes), taught, tau=tau)
        return tau**2 * kl_to_teacher(self._score(own, self._codes), taught, tau=tau)

    @property
    def _score(self) -> Callable[[Tensor, Tensor], Tensor]:
        """How the tokenizer's side is scored."""
        chosen = SCORES[self._method.score]
        return cosine_scores if self._released else chosen

    def _scores_of_teacher(self) -> Tensor | None:
        """[N, K] the tokenizer's scores of all observed nodes, which no step changes; None where they would take more
        than `KEPT_SCORES` numbers, or where `torch.cdist` answers for few rows in another way than for all."""
        rows, codes = self._h.size(0), self._codes.size(0)
        if rows * codes > KEPT_SCORES or codes <= FEW:
            return None
        with torch.no_grad():
            return self._score(self._h, self._codes)

    def _note(self, name: str, term: Tensor) -> Tensor:
        self._noted.setdefault(name, []).append(float(term.detach()))
        return term

    def means(self) -> dict[str, float]:
        """Term -> its mean contribution since the last call."""
        found = {name: mean_loss(values) for name, values in self._noted.items()}
        self._noted.clear()
        return found


def released_token_loss(student_scores: Tensor, teacher_scores: Tensor, *, tau: float) -> Tensor:
    """``T^2 / M sum exp(p) (p - log q)``, p and q the softmax of the scores / T: the official code's KL, whose target p
    is taken for a log-probability (docs/protocol.md, trap 5); scores [M, K], the teacher detached."""
    log_q = F.log_softmax(student_scores / tau, dim=1)
    p = (teacher_scores.detach() / tau).softmax(dim=1)
    return tau**2 * F.kl_div(log_q, p, reduction="batchmean", log_target=True)
