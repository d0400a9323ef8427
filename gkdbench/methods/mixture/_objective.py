"""The loss of one forward of a mixture student: labels, teacher, attacks, similarity, routing."""

from __future__ import annotations

import torch
from gkdkernels import Features
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.methods.mixture._fields import MixtureFields
from gkdbench.methods.mixture._targets import TeacherLoss
from gkdbench.methods.mixture._types import LossTerms, MixtureBatch
from gkdbench.nn.mixture import MixtureModel
from gkdbench.protocol.view import Teacher, TrainView
from gkdbench.training.blocks.adversarial import adversarial_loss
from gkdbench.training.blocks.similarity import Similarity
from gkdbench.training.losses import supervised
from gkdbench.training.steps import mean_loss


class MixtureObjective:
    """The loss of a forward, and the mean of what each of its terms added to it.

    Attributes:
        trained: every module that the optimiser moves.
        lessons: what the teacher asks.
    """

    def __init__(self, method: MixtureFields, view: TrainView, teacher: Teacher, model: MixtureModel) -> None:
        self._method, self._view, self._teacher, self._model = method, view, teacher, model
        self.lessons = TeacherLoss(method, view, teacher)
        self._seen: dict[str, list[float]] = {}
        self._similarity: Similarity | None = None
        if method.similarity:
            if teacher.hidden is None or method.model["layers"] < 2:
                raise UserError(
                    f"{method.name}: similarity: expected hidden layers of student and teacher, got none; use two "
                    "layers, or similarity=0"
                )
            widths = int(method.model["hidden"]), int(teacher.hidden.value.size(1))
            dropout = float(method.model["dropout"])
            self._similarity = Similarity(*widths, model.randomness, dropout=dropout).to(view.device)
        self.trained = nn.ModuleList([model, *([self._similarity] if self._similarity else [])])

    def __call__(self, rows: Features, batch: MixtureBatch) -> Tensor:
        """Scalar; `rows` are the inputs [B + B', D] of the batch's observed, then labelled items."""
        method, model = self._method, self._model
        trace = model.node_trace(rows, None)
        terms = self._base(batch, trace.logits)
        if method.adv_weight:
            attacked = adversarial_loss(
                model,
                rows,
                lambda x: self._attacked(batch, x),
                eps=method.adv_eps,
                steps=method.adv_steps,
                freeze_stats=not method.as_released,
            )
            terms["adversarial"] = method.adv_weight * attacked
        if self._similarity and self._teacher.hidden is not None and batch.labelled.numel():
            target = self._teacher.hidden[NodeSet(self._view.items, self._view.train.position[batch.labelled])]
            first = trace.first[batch.observed.numel() :]
            terms["similarity"] = method.similarity * self._similarity(first, target)
        # last: the spread reads the memory as the forwards above left it
        terms |= method.routing_terms(model, trace)
        for name, term in terms.items():
            self._seen.setdefault(name, []).append(float(term.detach()))
        return _sum(terms)

    def _attacked(self, batch: MixtureBatch, rows: Tensor) -> Tensor:
        """What attacks raise and the student then lowers: the losses of labels, teacher and routing at ``rows``."""
        trace = self._model.node_trace(rows, None)
        return _sum(self._base(batch, trace.logits) | self._method.routing_terms(self._model, trace))

    def _base(self, batch: MixtureBatch, logits: Tensor) -> LossTerms:
        """``lambda * CE`` and ``(1 - lambda) * KL`` of ``logits: [B + B', C]``."""
        method, view, cut = self._method, self._view, batch.observed.numel()
        terms: LossTerms = {}
        if cut:
            terms["kl"] = (1 - method.label_weight) * self.lessons(batch.observed, logits[:cut])
        if batch.labelled.numel():
            labels = view.labels[batch.labelled]
            terms["ce"] = method.label_weight * supervised(logits[cut:], labels, multi_label=view.multi_label)
        return terms

    def means(self) -> dict[str, float]:
        """Term -> its mean contribution since the last call."""
        found = {name: mean_loss(values) for name, values in self._seen.items()}
        self._seen.clear()
        return found


def _sum(terms: LossTerms) -> Tensor:
    return torch.stack(list(terms.values())).sum()
