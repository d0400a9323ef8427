"""Training of mixture-of-experts students: pre-training with one expert, a switch, routed training; one teacher."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.methods._distil import labelled_batches
from gkdbench.methods._encodings import encoded
from gkdbench.methods._mixture_loss import Batch, Objective, Terms
from gkdbench.methods._models import as_predictor, build
from gkdbench.methods._routing_report import diagnose
from gkdbench.methods._settings import Encoded, Rate, Share, Taught, Weight
from gkdbench.methods._steps import adam, batches, descend, mean_loss
from gkdbench.nn.mixture import Mixture, MixtureModel, MixtureTrace
from gkdbench.nn.model import Model
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
        start = self._train(view, ctx, predictor, model, objective)
        diagnose(ctx, view, model, predictor.prepared(view.inputs).features, start)
        return Fitted({"model": predictor})

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
        return f"{type(self).__name__}, {self.model['experts']} experts, {self.model_label().partition(' ')[2]}"


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
