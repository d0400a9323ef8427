"""Training of mixture-of-experts students: pre-training with one expert, a switch, routed training; one teacher.

Order: compute encodings, build the mixture, pre-train it with one expert, start the routers from the data at the
switch, train it routed, then store diagnostics of the routing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable, Space
from gkdbench.methods.mixture._diagnostics import diagnose
from gkdbench.methods.mixture._fields import MixtureFields
from gkdbench.methods.mixture._objective import MixtureObjective
from gkdbench.methods.mixture._types import MixtureBatch
from gkdbench.nn.mixture import MixtureConfig, MixtureModel
from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.encodings import InputEncoder, encoded
from gkdbench.training.blocks.label_histogram import LabelHistogram
from gkdbench.training.distil import labelled_batches
from gkdbench.training.models import as_predictor, build
from gkdbench.training.steps import adam, batches, descend, mean_loss


@dataclass(frozen=True, kw_only=True)
class MixtureStudent(MixtureFields):
    """How a mixture is trained; the hyper-parameters are those of `MixtureFields`."""

    def train_router(self, model: MixtureModel, optimiser: torch.optim.Optimizer) -> None:
        """Register with `optimiser`, once, what the routers train that is not a parameter."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config = self.student()
        encoders = self._encoders(view, ctx.seed)
        model = build(config, view, seed=ctx.seed, extra=sum(encoder.dim for encoder in encoders))
        if not isinstance(model, MixtureModel):
            raise TypeError(f"{self.name}: expected a mixture, got {type(model).__name__}")
        predictor = as_predictor(config, model, view.num_classes)
        if encoders:
            predictor = encoded(predictor, *encoders)
        objective = MixtureObjective(self, view, ctx.teachers["teacher"], model)
        start = self._train(view, ctx, predictor, model, objective)
        objective.lessons.note(ctx)
        diagnose(ctx, view, model, predictor.prepared(view.inputs).features, start)
        return Fitted({"model": predictor})

    def _encoders(self, view: TrainView, seed: int) -> list[InputEncoder]:
        """What puts columns next to the features."""
        found: list[InputEncoder] = []
        if self.encodings:
            softmax: Literal["negative", "hierarchical"] = "hierarchical" if self.as_released else "negative"
            # the official code computes encodings of the whole graph once, for the runs of all seeds
            walks = 0 if self.as_released and view.setting == "tran" else seed
            found.append(self.encoder(view.inputs, walks, softmax=softmax, zeros_included=self.as_released))
        if self.label_propagation:
            found.append(propagated_labels(view, own_label=self.as_released, key=Randomness(seed).key("folds")))
        return found

    def _train(
        self, view: TrainView, ctx: Context, predictor: Predictor, model: MixtureModel, objective: MixtureObjective
    ) -> list[Tensor]:
        """The memories right after the switch, [E, D] per layer."""
        optimiser = adam(objective.trained, lr=self.lr, weight_decay=self.weight_decay)
        self.train_router(model, optimiser)
        inputs = predictor.prepared(view.inputs)
        model.routed = False
        start: list[Tensor] = []

        def loss(batch: MixtureBatch) -> Callable[[], Tensor]:
            items = torch.cat([batch.observed, view.train.position[batch.labelled]])
            return lambda: objective(inputs.rows(NodeSet(view.items, items)), batch)

        for epoch in range(1, self.pretrain + self.epochs + 1):
            if epoch == self.pretrain + 1:
                before = predictor.evaluate(view.inputs)
                model.begin_routing(inputs.features)
                forget_moments(optimiser, model)
                ctx.extra["switch_jump"] = float((predictor.evaluate(view.inputs) - before).abs().max())
                start = [memory.detach().clone() for memory in model.router_tensors()]
            objective.lessons.begin(epoch, model.randomness, partial(predictor.evaluate, view.inputs))
            model.train()
            if self.as_released:
                value = descend_together(model, optimiser, [loss(b) for b in self._apart(view)], mean=False)
            elif self.steps == "per_epoch":
                value = descend_together(model, optimiser, [loss(b) for b in self._together(view, model)], mean=True)
            else:
                value = mean_loss([descend(model, optimiser, loss(b)) for b in self._together(view, model)])
            terms = {"loss": value, **objective.means()}
            selectable = self.as_released or epoch > self.pretrain
            if ctx.monitor.report(epoch, {"model": predictor}, terms=terms, selectable=selectable).stop:
                break
        return start

    def _together(self, view: TrainView, model: Model) -> Iterator[MixtureBatch]:
        """One pass over all observed nodes, labelled ones next to them where they have a weight."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        if self.label_weight == 1:
            for labelled in batches(model, len(view.train), self.batch_size):
                yield MixtureBatch(nothing, labelled)
            return
        labels = labelled_batches(view, model, self.batch_size)
        for batch in batches(model, len(everything), self.batch_size):
            used = self.label_weight or self.similarity
            yield MixtureBatch(everything[batch], next(labels) if used else batch[:0])

    def _apart(self, view: TrainView) -> Iterator[MixtureBatch]:
        """The official code's forwards of an epoch: labelled nodes, then all observed ones, each in their order."""
        everything, nothing = view.inputs.everything.position, view.train.position[:0]
        size = self.batch_size or len(everything)
        for labelled in torch.split(torch.arange(len(view.train)), size):
            yield MixtureBatch(nothing, labelled)
        for observed in torch.split(everything, size):
            yield MixtureBatch(observed, torch.arange(0))

    @property
    def label(self) -> str:
        used = f"{self.model['k']} of {self.model['experts']} experts"
        return f"{' + '.join([type(self).__name__, *self.options])}, {used}, {self.model_label().partition(' ')[2]}"

    @property
    def options(self) -> list[str]:
        """What is on beside the distillation loss, in words."""
        named = {
            "reliable sampling": self.reliable,
            "attacks": self.adv_weight,
            "encodings": self.encodings,
            "similarity": self.similarity,
            "propagated labels": self.label_propagation,
        }
        return [words for words, on in named.items() if on]


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


def forget_moments(optimiser: torch.optim.Optimizer, model: MixtureModel) -> None:
    """Let `optimiser` begin anew for the layers whose experts are copies of expert 0.

    Before the switch experts 1 to E - 1, gates and temperatures had no gradient, or that of the weight decay: with
    these moments and bias corrections that are spent, their first routed steps would be 2 to 10 times those of expert
    0. In the official code, which has a module per expert, the copied ones begin so, too; expert 0 keeps its moments.
    """
    for layer in model.expert_layers:
        for parameter in layer.parameters() if layer.copies_first else ():
            optimiser.state.pop(parameter, None)


def propagated_labels(view: TrainView, *, own_label: bool, key: int) -> LabelHistogram:
    """The histogram of training labels that walks of up to 10 edges bring to a node, each edge at a tenth."""
    known = NodeTable(Space("labelled", view.train.ids), view.labels)
    return LabelHistogram(known, view.num_classes, reach="walks", decay=0.1, depth=11, own_label=own_label, key=key)


def changed(config: MixtureConfig, **fields: object) -> MixtureConfig:
    """`config` with `fields` of its own kind replaced."""
    return dataclasses.replace(config, **fields)  # type: ignore[arg-type]
