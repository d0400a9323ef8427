"""The peers' loop: K models trained together on the same items. A method supplies the losses of all peers.

Order: for every batch either one forward of all peers, their losses and a step of each, or the peers one after another,
each seeing the new weights of those before it; after the epoch a report to the Monitor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.model import Backbone, Model, Trace
from gkdbench.nn.stats import update_stats
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.graph_batches import graph_batches
from gkdbench.training.loop import train
from gkdbench.training.models import as_predictor, build
from gkdbench.training.steps import adam, batches

Update = Literal["simultaneous", "alternating"]


@dataclass(frozen=True, kw_only=True)
class MutualTrainingSettings:
    """How peers are trained.

    Args:
        lr, weight_decay: of every peer's own Adam.
        epochs: at most; the Monitor may stop earlier.
        batch_size: labelled items a step; None: all. Node tasks run on the whole observed graph in every step.
        graphs_per_step: of node tasks on several graphs: how many graphs a step reads; None: all.
        update: one joint forward and K optimiser steps, or each peer in turn, who sees those before it after their
            step of this batch. Each peer's dropout is the same throughout the batch.
        clip: largest norm of a peer's gradient; None: any.
        every: epochs between evaluations.
        store_on_loss: a state is stored on a lower training loss too (`gkdbench.training.loop.train`).
    """

    lr: float
    weight_decay: float
    epochs: int
    batch_size: int | None = None
    graphs_per_step: int | None = None
    update: Update = "simultaneous"
    clip: float | None = None
    every: int = 1
    store_on_loss: bool = False


@dataclass(frozen=True, eq=False)
class JointForward:
    """Outputs of all peers on the same items, in one training forward.

    Args:
        epoch: from 1.
        inputs: what was read: the observed graph, or a batch of training graphs.
        traces: per peer its logits [N, C] on all items of `inputs`, and its hidden layers' pre-activations.
        rows: [L] int64, which items are labelled in this step.
        labels: [L] int64, or [L, C] float32 with NaN where unknown.
        turn: the peer that is about to step, whose loss alone is used; None: all of them.
    """

    epoch: int
    inputs: Inputs
    traces: tuple[Trace, ...]
    rows: Tensor
    labels: Tensor
    turn: int | None = None

    @property
    def logits(self) -> list[Tensor]:
        """K tensors [N, C]."""
        return [trace.logits for trace in self.traces]

    @cached_property
    def targets(self) -> Tensor:
        """Labels of all items: [N] int64 with -1, or [N, C] float32 with NaN, where there is none in this step."""
        several = self.labels.is_floating_point()
        shape = (len(self.inputs.items), *self.labels.shape[1:])
        targets = self.labels.new_full(shape, float("nan") if several else -1)
        targets[self.rows] = self.labels
        return targets

    @cached_property
    def labelled(self) -> Tensor:
        """[N] bool, the items that `rows` names."""
        mask = torch.zeros(len(self.inputs.items), dtype=torch.bool, device=self.rows.device)
        mask[self.rows] = True
        return mask


PeerLossFunction = Callable[[JointForward], tuple[Tensor, Mapping[str, Tensor]]]
"""One joint forward -> (the loss of every peer [K], diagnostics by name, scalars to be stored per epoch).

Loss j must move peer j alone: the others' logits enter it detached, unless their part in it is the method's point and
`update` is simultaneous, where the losses are summed before the one backward pass.
"""


@dataclass(eq=False)
class Peer:
    """One of the models trained together.

    Args:
        model: the backbone that is run in training.
        predictor: what is selected and deployed.
        optimiser: of `model`, and of what the method lets it own.
        name: in records.
        deployed: whether it is evaluated, selected and scored; else it only helps others to learn.
    """

    model: Model
    predictor: Predictor
    optimiser: torch.optim.Adam
    name: str
    deployed: bool = True

    def step(self, clip: float | None) -> None:
        """One optimiser step on the gradients that are there."""
        if clip is not None:
            nn.utils.clip_grad_norm_([p for group in self.optimiser.param_groups for p in group["params"]], clip)
        self.optimiser.step()


def build_peers(
    view: TrainView,
    seed: int,
    configs: Sequence[Backbone],
    settings: MutualTrainingSettings,
    *,
    owned: Sequence[nn.Module] = (),
    copied: bool = False,
) -> list[Peer]:
    """Untrained peers, peer k drawn from (seed, k), so that peer 0 is the solo model of this seed.

    Args:
        owned: per peer a module of the method, trained by the peer's optimiser without weight decay; empty: none.
        copied: every peer starts from peer 0's weights (its dropout stays its own).

    Raises:
        UserError: copied weights of different backbones.
    """
    models = [build(config, view, seed=seed, peer=k) for k, config in enumerate(configs)]
    if copied:
        if any(config != configs[0] for config in configs):
            raise UserError(
                "copied initial weights: expected peers of one backbone with one configuration, got different ones"
            )
        for model in models[1:]:
            model.load_state_dict(models[0].state_dict())
    found = []
    for k, (config, model) in enumerate(zip(configs, models, strict=True)):
        whole: nn.Module = nn.ModuleList([model, owned[k]]) if owned else model
        decayed = list(model.parameters()) if owned else None
        optimiser = adam(whole, lr=settings.lr, weight_decay=settings.weight_decay, decayed=decayed)
        found.append(Peer(model, as_predictor(config, model, view.num_classes), optimiser, f"peer{k}"))
    return found


def train_peers(
    view: TrainView,
    ctx: Context,
    peers: Sequence[Peer],
    settings: MutualTrainingSettings,
    losses: PeerLossFunction,
    mixture: Predictor | None = None,
) -> tuple[Fitted, list[dict[str, float]]]:
    """Train `peers` on `losses`.

    Args:
        mixture: the method's own ensemble of the peers, in the place of their mean probability.

    Where loss 0 is the supervised loss alone, peer 0 is bit for bit the solo run of `gkdbench.training.train_solo`:
    batches are drawn from its randomness, and every peer makes one optimiser step a batch.

    Returns:
        The deployed peers with their ensemble, and the terms of every epoch.

    Example:
        >>> from gkdbench.testing import small_run
        >>> from gkdbench.training import backbone_config, kl_to_teacher, supervised
        >>> view, ctx = small_run("dml")
        >>> settings = MutualTrainingSettings(lr=0.01, weight_decay=5e-4, epochs=3)
        >>> peers = build_peers(view, ctx.seed, [backbone_config("mlp", {"hidden": 8})] * 2, settings)
        >>> def losses(joint):
        ...     first, second = joint.logits
        ...     labels = [supervised(z[joint.rows], joint.labels) for z in (first, second)]
        ...     kl = [kl_to_teacher(first, second), kl_to_teacher(second, first)]
        ...     return torch.stack(labels) + torch.stack(kl), {}
        >>> fitted, history = train_peers(view, ctx, peers, settings, losses)
        >>> sorted(fitted.predictors), fitted.ensemble, len(history)
        (['peer0', 'peer1'], True, 3)
    """
    predictors = {peer.name: peer.predictor for peer in peers if peer.deployed}
    if mixture is not None:
        predictors["ensemble"] = mixture
    losses_by_name = [f"loss.{peer.name}" for peer in peers]
    advance = _simultaneous if settings.update == "simultaneous" else _alternating
    history: list[dict[str, float]] = []

    def step(epoch: int) -> dict[str, float]:
        reported = []
        for inputs, rows, labels in _batches(view, peers[0].model, settings):
            for peer in peers:
                peer.model.randomness.step += 1
            losses_of = _On(losses, epoch, inputs, rows, labels)
            values, diagnostics = advance(peers, losses_of, settings.clip)
            reported.append(dict(zip(losses_by_name, values.detach(), strict=True)) | dict(diagnostics))
        terms = {name: float(torch.stack([n[name].detach().float() for n in reported]).mean()) for name in reported[0]}
        history.append({"loss": sum(terms[name] for name in losses_by_name) / len(peers)} | terms)
        return history[-1]

    own = {name: f"loss.{name}" for name in predictors} if settings.store_on_loss else None
    train(ctx, predictors, step, epochs=settings.epochs, every=settings.every, losses=own)
    return Fitted(predictors, ensemble=mixture is None), history


@dataclass(frozen=True)
class _On:
    """The method's losses, on what one step reads."""

    losses: PeerLossFunction
    epoch: int
    inputs: Inputs
    rows: Tensor
    labels: Tensor

    def trace(self, peer: Peer) -> Trace:
        return peer.model.trace(*self.inputs.arguments(peer.model))

    def __call__(self, traces: Sequence[Trace], turn: int | None = None) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.losses(JointForward(self.epoch, self.inputs, tuple(traces), self.rows, self.labels, turn))


def _batches(
    view: TrainView, first: Model, settings: MutualTrainingSettings
) -> Iterator[tuple[Inputs, Tensor, Tensor]]:
    """(inputs, labelled rows in them, labels) of the steps of an epoch."""
    if settings.graphs_per_step is not None:
        for part in graph_batches(view, first, settings.graphs_per_step):
            yield part.inputs, part.rows, part.labels
        return
    for batch in batches(first, len(view.train), settings.batch_size):
        items, labels = view.train.position[batch], view.labels[batch]
        if view.kind == "graph":
            yield view.inputs.take(items), torch.arange(items.numel(), device=items.device), labels
        else:
            yield view.inputs, items, labels


def _simultaneous(peers: Sequence[Peer], losses: _On, clip: float | None) -> tuple[Tensor, Mapping[str, Tensor]]:
    for peer in peers:
        peer.optimiser.zero_grad(set_to_none=True)
    values, diagnostics = losses([losses.trace(peer) for peer in peers])
    values.sum().backward()  # type: ignore[no-untyped-call]
    for peer in peers:
        peer.step(clip)
    return values, diagnostics


def _alternating(peers: Sequence[Peer], losses: _On, clip: float | None) -> tuple[Tensor, Mapping[str, Tensor]]:
    traces = [losses.trace(peer) for peer in peers]
    own: list[Tensor] = []
    diagnostics: dict[str, Tensor] = {}
    for k, peer in enumerate(peers):
        peer.optimiser.zero_grad(set_to_none=True)
        values, of_turn = losses([t if i == k else _detached(t) for i, t in enumerate(traces)], k)
        diagnostics |= of_turn
        values[k].backward()  # type: ignore[no-untyped-call]
        own.append(values[k])
        peer.step(clip)
        if k < len(peers) - 1:
            with torch.no_grad(), update_stats(peer.model, False):
                traces[k] = losses.trace(peer)
    return torch.stack(own), diagnostics


def _detached(trace: Trace) -> Trace:
    return replace(
        trace,
        logits=trace.logits.detach(),
        hidden=tuple(layer.detach() for layer in trace.hidden),
        pooled=None if trace.pooled is None else trace.pooled.detach(),
    )
