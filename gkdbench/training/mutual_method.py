"""What methods of peers have in common: their settings, and a fit that asks them for their losses alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from gkdkernels import segment_mean
from pydantic import Field
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.model import Backbone, Trace
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.losses import supervised
from gkdbench.training.method import Method
from gkdbench.training.models import backbone_config, describe
from gkdbench.training.mutual import JointForward, MutualTrainingSettings, Update, build_peers, train_peers
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class MutualMethod(Method):
    """A method that trains several models together.

    Fields:
        peers: their backbones, in order. models: backbone -> its settings (peers of one backbone share them).
        lr, weight_decay: of every peer's Adam. epochs, patience: at most, and without improvement on validation of
        any peer. batch_size: labelled items a step; None: all.
    """

    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    peers: Annotated[tuple[str, ...], Field(min_length=1)] = ("gcn", "sage")
    models: Mapping[str, Any] = field(default_factory=dict)
    lr: PositiveFloat = 0.01
    weight_decay: NonNegativeFloat = 5e-4
    epochs: PositiveInt = 200
    patience: PositiveInt | None = 50
    batch_size: PositiveInt | None = None

    def backbones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.peers))

    def configs(self) -> list[Backbone]:
        """Every peer's configuration object."""
        return [backbone_config(name, self.models.get(name, {})) for name in self.peers]

    def mutual_settings(self) -> MutualTrainingSettings:
        """How the peers are trained."""
        return MutualTrainingSettings(
            lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs, batch_size=self.batch_size
        )

    def peers_label(self) -> str:
        """The peers in a table, e.g. ``GCN 2x64 + SAGE 2x64``."""
        return " + ".join(describe(name, self.models.get(name, {})) for name in self.peers)

    @property
    def label(self) -> str:
        return f"{self.name}, {self.peers_label()}"


@dataclass(frozen=True, kw_only=True)
class LogitMutualMethod(MutualMethod):
    """Peers that are ordinary backbones and teach each other by a loss of their logits.

    Fields:
        update: one joint forward and K optimiser steps, or each peer in turn, who sees the others after their step.
    """

    update: Update = "simultaneous"

    def mutual_settings(self) -> MutualTrainingSettings:
        return replace(super().mutual_settings(), update=self.update)

    def peers_label(self) -> str:
        return super().peers_label() + (" in turn" if self.update == "alternating" else "")

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings = self.mutual_settings()
        peers = build_peers(view, ctx.seed, self.configs(), settings)
        return train_peers(view, ctx, peers, settings, partial(self.losses, multi_label=view.multi_label))[0]

    @abstractmethod
    def losses(self, joint: JointForward, *, multi_label: bool) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Every peer's loss [K], and what is to be stored of this step (see `PeerLossFunction`)."""


def label_losses(joint: JointForward, logits: Sequence[Tensor], *, multi_label: bool) -> Tensor:
    """[K] the supervised loss of each of the K `logits` [N, C]."""
    return torch.stack([supervised(z[joint.rows], joint.labels, multi_label=multi_label) for z in logits])


def pair_diagnostics(kl: Tensor) -> dict[str, Tensor]:
    """``kl: [K, K]`` as diagnostics: "kl01" is the mean KL(p_0 || p_1)."""
    count = len(kl)
    return {f"kl{i}{j}": kl[i, j] for i in range(count) for j in range(count) if i != j}


def node_features(joint: JointForward) -> list[Tensor]:
    """Per peer the node features [N, H] of its last hidden layer, after the activation.

    Raises:
        UserError: a peer without hidden layers, or peers of different widths.
    """
    if any(not trace.hidden for trace in joint.traces):
        raise UserError(
            "expected peers with a hidden layer, which this method reads, got none; give every peer at least two layers"
        )
    features = [torch.relu(trace.hidden[-1]) for trace in joint.traces]
    if len({x.size(1) for x in features}) > 1:
        widths = ", ".join(str(x.size(1)) for x in features)
        raise UserError(f"the peers' last hidden layers: expected one width, got {widths}; this method compares them")
    return features


def item_features(joint: JointForward) -> list[Tensor]:
    """As `node_features`; of graphs what the readout made, or the mean over their nodes, [G, H]."""
    node_features(joint)  # refuses what has no comparable features
    return [features_of_items(trace, joint.inputs.segments) for trace in joint.traces]


def features_of_items(trace: Trace, segments: Tensor | None) -> Tensor:
    """[N, H] of one peer's `trace`, or [G, H] with `segments` [G + 1]."""
    if trace.pooled is not None:
        return trace.pooled
    features = torch.relu(trace.hidden[-1])
    return features if segments is None else segment_mean(features, segments)
