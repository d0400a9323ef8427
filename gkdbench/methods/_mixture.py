"""Training of mixture-of-experts students: pre-training with one expert, a switch, routed training; one teacher."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from gkdkernels import Features
from pydantic import Field
from torch import Tensor, nn

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.methods._adversarial import adversarial_loss
from gkdbench.methods._distil import labelled_batches
from gkdbench.methods._encodings import encoded
from gkdbench.methods._losses import kl_to_teacher, supervised
from gkdbench.methods._models import as_predictor, build
from gkdbench.methods._routing import diagnose
from gkdbench.methods._settings import Encoded, Rate, Share, Taught, Weight
from gkdbench.methods._similarity import Similarity
from gkdbench.methods._steps import adam, batches, descend, mean_loss
from gkdbench.nn.mixture import Mixture, MixtureModel, MixtureTrace
from gkdbench.nn.model import Model
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, Teacher, TrainView

Natural = Annotated[int, Field(ge=0)]
Terms = dict[str, Tensor]
"""Name -> what a term adds to the loss of a step."""


class Batch(NamedTuple):
    """What one forward sees: observed items [B] (positions), and labelled ones [B'] (places in ``view.train``)."""

    observed: Tensor
    labelled: Tensor


@dataclass(frozen=True, kw_only=True)
class MixtureStudent(Encoded, Taught):
    """A mixture trained with ``lambda * CE(V_L) + (1 - lambda) * KL(p_T || p_S; V_obs)`` at temperature tau.

    Args:
        label_weight: lambda.
        tau: temperature of both sides of the KL.
        pretrain: epochs with expert 0 alone, before `epochs` with routing; they cannot be selected.
        steps: an optimiser step per batch, or one per epoch on the mean gradient of its batches.
        balance: weight of the loss that evens out the experts' load.
        encodings: put DeepWalk encodings beside the features.
        adv_weight: of the loss on attacked inputs. adv_eps: largest change. adv_steps: steps of eps / 4.
        similarity: weight of the Gram loss between the first hidden layer and the teacher's last one.
    """

    label_weight: Share = 0.2
    tau: Rate = 1.0
    pretrain: Natural = 12
    steps: Literal["per_batch", "per_epoch"] = "per_batch"
    balance: Weight = 0.01
    encodings: bool = False
    adv_weight: Weight = 0.0
    adv_eps: Weight = 0.04
    adv_steps: Natural = 5
    similarity: Weight = 0.0

    @property
    def released(self) -> bool:
        """Whether this is the published form."""
        return self.variant == "as_released"

    @abstractmethod
    def student(self) -> Mixture:
        """The backbone of this variant."""

    @abstractmethod
    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> Terms:
        """The weighted losses of the routing of one forward, summed over layers."""

    def train_router(self, model: MixtureModel, optimiser: torch.optim.Optimizer) -> None:
        """Tell `optimiser`, once, of what moves in the routers and is no parameter."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        encoder = None
        if self.encodings:
            softmax: Literal["negative", "hierarchical"] = "hierarchical" if self.released else "negative"
            encoder = self.encoder(view.inputs, ctx.seed, softmax=softmax, zeros_included=self.released)
        config = self.student()
        model = build(config, view, seed=ctx.seed, extra=encoder.dim if encoder else 0)
        if not isinstance(model, MixtureModel):
            raise TypeError(f"{self.name} wants a mixture, got {type(model).__name__}")
        predictor = as_predictor(config, model, view.num_classes)
        if encoder:
            predictor = encoded(predictor, encoder)
        objective = Objective(self, view, ctx.teachers["teacher"], model)
        self._train(view, ctx, predictor, model, objective)
        diagnose(ctx, config, model, predictor.prepared(view.inputs).features)
        return Fitted({"model": predictor})

    def _train(
        self, view: TrainView, ctx: Context, predictor: Predictor, model: MixtureModel, objective: Objective
    ) -> None:
        optimiser = adam(objective.trained, lr=self.lr, weight_decay=self.weight_decay)
        self.train_router(model, optimiser)
        inputs = predictor.prepared(view.inputs)
        model.routed = False

        def loss(batch: Batch) -> Callable[[], Tensor]:
            items = torch.cat([batch.observed, view.train.position[batch.labelled]])
            return lambda: objective(inputs.rows(NodeSet(view.items, items)), batch)

        for epoch in range(1, self.pretrain + self.epochs + 1):
            if epoch == self.pretrain + 1:
                before = predictor.evaluate(view.inputs)
                model.begin_routing(inputs.features)
                ctx.extra["switch_jump"] = float((predictor.evaluate(view.inputs) - before).abs().max())
            model.train()
            if self.released:
                value = descend_together(model, optimiser, [loss(b) for b in self._apart(view)], mean=False)
            elif self.steps == "per_epoch":
                value = descend_together(model, optimiser, [loss(b) for b in self._together(view, model)], mean=True)
            else:
                value = mean_loss([descend(model, optimiser, loss(b)) for b in self._together(view, model)])
            terms = {"loss": value, **objective.means()}
            selectable = self.released or epoch > self.pretrain
            if ctx.monitor.report(epoch, {"model": predictor}, terms=terms, selectable=selectable).stop:
                return

    def _together(self, view: TrainView, model: Model) -> Iterator[Batch]:
        """One pass over all observed nodes, labelled ones beside them where they have a weight."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        if self.label_weight == 1:
            for labelled in batches(model, len(view.train), self.batch_size):
                yield Batch(nothing, labelled)
            return
        labels = labelled_batches(view, model, self.batch_size)
        for batch in batches(model, len(everything), self.batch_size):
            yield Batch(everything[batch], next(labels) if self.label_weight else batch[:0])

    def _apart(self, view: TrainView) -> Iterator[Batch]:
        """The release's forwards of an epoch: labelled nodes, then all observed ones, in the order of their numbers."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        size = self.batch_size or len(everything)
        for labelled in torch.split(torch.arange(len(view.train)), size):
            yield Batch(nothing, labelled)
        for observed in torch.split(everything, size):
            yield Batch(observed, torch.arange(0))

    @property
    def label(self) -> str:
        return f"{type(self).__name__}, {self.model['experts']} experts, {self.model_label().partition(' ')[2]}"


class Objective:
    """The loss of a forward, and the mean of what each of its terms added to it.

    Attributes:
        trained: every module that the optimiser moves.
    """

    def __init__(self, method: MixtureStudent, view: TrainView, teacher: Teacher, model: MixtureModel) -> None:
        self._method, self._view, self._teacher, self._model = method, view, teacher, model
        self._seen: dict[str, list[float]] = {}
        self._similarity: Similarity | None = None
        if method.similarity:
            if teacher.hidden is None or method.model["layers"] < 2:
                raise UserError(f"{method.name}: similarity compares hidden layers; give both two layers, or 0")
            widths = int(method.model["hidden"]), int(teacher.hidden.value.size(1))
            self._similarity = Similarity(*widths, model.randomness).to(view.device)
        self.trained = nn.ModuleList([model, *([self._similarity] if self._similarity else [])])

    def __call__(self, rows: Features, batch: Batch) -> Tensor:
        """Scalar; `rows` are the inputs [B + B', D] of the batch's observed, then labelled items."""
        method, model = self._method, self._model
        trace = model.node_trace(rows, None)
        terms = self._base(batch, trace.logits)
        if method.adv_weight:
            attacked = adversarial_loss(
                model,
                rows,
                lambda x: _sum(self._base(batch, model(x))),
                eps=method.adv_eps,
                steps=method.adv_steps,
                freeze_stats=not method.released,
            )
            terms["adversarial"] = method.adv_weight * attacked
        if self._similarity and self._teacher.hidden is not None:
            items = torch.cat([batch.observed, self._view.train.position[batch.labelled]])
            target = self._teacher.hidden[NodeSet(self._view.items, items)]
            terms["similarity"] = method.similarity * self._similarity(F.relu(trace.hidden[0]), target)
        # last: the spread reads the memory as the forwards above left it
        terms |= method.routing_terms(model, trace)
        for name, term in terms.items():
            self._seen.setdefault(name, []).append(float(term.detach()))
        return _sum(terms)

    def _base(self, batch: Batch, logits: Tensor) -> Terms:
        """``lambda * CE`` and ``(1 - lambda) * KL`` of ``logits: [B + B', C]``."""
        method, view, cut = self._method, self._view, batch.observed.numel()
        terms: Terms = {}
        if cut:
            target = self._teacher.logits[NodeSet(view.items, batch.observed)]
            unlike = scaled_log_probabilities if method.released and not view.multi_label else kl_to_teacher
            soft = partial(unlike, multi_label=view.multi_label) if unlike is kl_to_teacher else unlike
            terms["kl"] = (1 - method.label_weight) * soft(logits[:cut], target, tau=method.tau)
        if batch.labelled.numel():
            labels = view.labels[batch.labelled]
            terms["ce"] = method.label_weight * supervised(logits[cut:], labels, multi_label=view.multi_label)
        return terms

    def means(self) -> dict[str, float]:
        """Term -> its mean contribution since the last call."""
        found = {name: mean_loss(values) for name, values in self._seen.items()}
        self._seen.clear()
        return found


def _sum(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def scaled_log_probabilities(student_logits: Tensor, teacher_logits: Tensor, *, tau: float) -> Tensor:
    """The release's "KL": ``mean over rows of sum_c exp(a_c) (a_c - b_c)``, a and b log-softmax divided by tau.

    Neither side sums to 1 after the division, so that it is no divergence: it can be negative.

    Args:
        student_logits, teacher_logits: [M, C].
    """
    teacher = F.log_softmax(teacher_logits.detach(), dim=1) / tau
    student = F.log_softmax(student_logits, dim=1) / tau
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def descend_together(
    model: Model, optimiser: torch.optim.Optimizer, losses: Sequence[Callable[[], Tensor]], *, mean: bool
) -> float:
    """One optimiser step on the mean (or the sum) of `losses`, evaluated and differentiated one by one.

    Returns:
        Its value. The model's randomness advances by a step per loss.
    """
    optimiser.zero_grad(set_to_none=True)
    share, total = 1 / len(losses) if mean else 1.0, 0.0
    for loss in losses:
        model.randomness.step += 1
        value = share * loss()
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    optimiser.step()
    return total


def changed(config: Mixture, **fields: object) -> Mixture:
    """`config` with `fields` of its own kind replaced."""
    return dataclasses.replace(config, **fields)  # type: ignore[arg-type]
