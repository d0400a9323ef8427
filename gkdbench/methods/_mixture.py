"""Training of mixture-of-experts students: pre-training with one expert, a switch, routed training; one teacher."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable, Space
from gkdbench.errors import UserError
from gkdbench.methods._distil import labelled_batches
from gkdbench.methods._encodings import Encodes, encoded
from gkdbench.methods._histograms import LabelHistogram
from gkdbench.methods._mixture_loss import Batch, Objective, Terms
from gkdbench.methods._models import as_predictor, build
from gkdbench.methods._routing_report import diagnose
from gkdbench.methods._settings import Count, Encoded, Rate, Share, Taught, Weight
from gkdbench.methods._steps import adam, batches, descend, mean_loss
from gkdbench.nn.mixture import Mixture, MixtureModel, MixtureTrace
from gkdbench.nn.model import NEUTRAL, Model
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView

Natural = Annotated[int, Field(ge=0)]


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
        label_propagation: put ``(I + 0.1 P)^9 0.1 P Y`` of the labels Y of training nodes beside them, P the mean over
            in-neighbours, rows divided by their sums. A node's own label has no part in its row (as released it has).
        reliable: learn from neighbours that KRD's sampler draws, too; power, momentum, bins: of the sampler.
        update_from: first epoch that moves the sampler's power.
        adv_weight: of the loss on attacked inputs. adv_eps: largest change. adv_steps: steps of eps / 4.
        similarity: weight of the Gram loss between the first hidden layer and the teacher's last one.
    """

    label_weight: Share = 0.2
    tau: Rate = 1.0
    pretrain: Natural = 12
    steps: Literal["per_batch", "per_epoch"] = "per_batch"
    balance: Weight = 0.01
    encodings: bool = False
    label_propagation: bool = field(default=False, metadata=NEUTRAL)
    reliable: bool = field(default=False, metadata=NEUTRAL)
    power: Rate = field(default=1.0, metadata=NEUTRAL)
    momentum: Share = field(default=0.99, metadata=NEUTRAL)
    bins: Count = field(default=50, metadata=NEUTRAL)
    update_from: Natural = field(default=50, metadata=NEUTRAL)
    adv_weight: Weight = 0.0
    adv_eps: Weight = 0.04
    adv_steps: Natural = 5
    similarity: Weight = 0.0

    @abstractmethod
    def student(self) -> Mixture:
        """The backbone of this variant."""

    @abstractmethod
    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> Terms:
        """The weighted losses of the routing of one forward, summed over layers."""

    def train_router(self, model: MixtureModel, optimiser: torch.optim.Optimizer) -> None:
        """Tell `optimiser`, once, of what moves in the routers and is no parameter."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config = self.student()
        encoders = self._encoders(view, ctx.seed)
        model = build(config, view, seed=ctx.seed, extra=sum(encoder.dim for encoder in encoders))
        if not isinstance(model, MixtureModel):
            raise TypeError(f"{self.name} wants a mixture, got {type(model).__name__}")
        predictor = as_predictor(config, model, view.num_classes)
        if encoders:
            predictor = encoded(predictor, *encoders)
        objective = Objective(self, view, ctx.teachers["teacher"], model)
        start = self._train(view, ctx, predictor, model, objective)
        objective.lessons.note(ctx)
        diagnose(ctx, view, model, predictor.prepared(view.inputs).features, start)
        return Fitted({"model": predictor})

    def _encoders(self, view: TrainView, seed: int) -> list[Encodes]:
        """What puts columns beside the features."""
        found: list[Encodes] = []
        if self.encodings:
            softmax: Literal["negative", "hierarchical"] = "hierarchical" if self.released else "negative"
            # the release computes encodings of the whole graph once, for the runs of all seeds
            walks = 0 if self.released and view.setting == "tran" else seed
            found.append(self.encoder(view.inputs, walks, softmax=softmax, zeros_included=self.released))
        if self.label_propagation:
            if view.multi_label:
                raise UserError(f"{self.name}: label propagation wants one label per item; use label_propagation=false")
            found.append(propagated_labels(view, own_label=self.released, key=Randomness(seed).key("folds")))
        return found

    def _train(
        self, view: TrainView, ctx: Context, predictor: Predictor, model: MixtureModel, objective: Objective
    ) -> list[Tensor]:
        """The memories right after the switch, [E, D] per layer."""
        optimiser = adam(objective.trained, lr=self.lr, weight_decay=self.weight_decay)
        self.train_router(model, optimiser)
        inputs = predictor.prepared(view.inputs)
        model.routed = False
        start: list[Tensor] = []

        def loss(batch: Batch) -> Callable[[], Tensor]:
            items = torch.cat([batch.observed, view.train.position[batch.labelled]])
            return lambda: objective(inputs.rows(NodeSet(view.items, items)), batch)

        for epoch in range(1, self.pretrain + self.epochs + 1):
            if epoch == self.pretrain + 1:
                before = predictor.evaluate(view.inputs)
                model.begin_routing(inputs.features)
                ctx.extra["switch_jump"] = float((predictor.evaluate(view.inputs) - before).abs().max())
                start = [memory.detach().clone() for memory in model.router_tensors()]
            objective.lessons.begin(epoch, model.randomness, partial(predictor.evaluate, view.inputs))
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
                break
        return start

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
        used = f"{self.model['k']} of {self.model['experts']} experts"
        return f"{type(self).__name__}, {used}, {self.model_label().partition(' ')[2]}"


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


def propagated_labels(view: TrainView, *, own_label: bool, key: int) -> LabelHistogram:
    """The histogram of training labels that walks of up to 10 edges bring to a node, each edge at a tenth."""
    known = NodeTable(Space("labelled", view.train.ids), view.labels)
    return LabelHistogram(known, view.num_classes, reach="walks", decay=0.1, depth=11, own_label=own_label, key=key)


def changed(config: Mixture, **fields: object) -> Mixture:
    """`config` with `fields` of its own kind replaced."""
    return dataclasses.replace(config, **fields)  # type: ignore[arg-type]
