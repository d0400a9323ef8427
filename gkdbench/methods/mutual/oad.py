"""OAD: students that learn from the mean of the others, with features made indistinguishable by discriminators.

Order: in every step one forward of all students and their cross-entropies; after the warm-up the KL from the others'
mean, then a step of the discriminators on detached features, then the students' step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, gcn_weight, spmm
from pydantic import Field
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.ramp_up import tempered_kl
from gkdbench.training.models import hidden_width
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import MutualMethod, label_losses, node_features
from gkdbench.training.steps import adam
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class OAD(MutualMethod):
    """``L_i = CE_i + w_kd T^2 KL(sg p(mean_{j != i} z_j / T) || p(z_i / T); V_L) + w_g BCE(D_{i+1}(h_i), 1)``.

    Discriminator i separates the last hidden features of student i (real) from those of student i - 1, in a circle; it
    is trained before every step of the students. The transfer begins after a warm-up on labels (Wang et al. 2024).

    ``as_released``: the KL is averaged over items and classes and then divided by the items again, so that it is
    1 / (N C) of itself; discriminators end in a ReLU, so that they never reject. The official code also selects Cora's
    epoch on test nodes and reports the best student on the evaluated set: the audit's part here, as for every method.

    Args:
        tau: T. kd_weight: w_kd. gan_weight: w_g; 0 leaves discriminators out.
        warmup: epochs on labels alone. width: of the discriminators.
    """

    name: ClassVar[str] = "oad"
    paper: ClassVar[str] = (
        "Wang, Wang, Chen, Zhou, Feng, Chen, Online Adversarial Knowledge Distillation for Graph Neural Networks"
    )
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2112.13966"
    repository: ClassVar[str] = "wangz3066/OnlineDistillGCN"
    licence: ClassVar[str] = "not checked"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the KL is a mean over items; the official code's is smaller by the number of items times classes",
        "discriminators end linearly; the official code's end in a ReLU before the sigmoid and cannot reject",
        "validation selects every student's epoch and the mean over students is reported; the official code "
        "selects Cora's on test nodes and reports the best student",
        "several labels: no linear cross-fade from labels to peers",
    )
    smoke: ClassVar[Mapping[str, object]] = {"epochs": 8, "warmup": 2}

    peers: Annotated[tuple[str, ...], Field(min_length=1)] = ("gcn", "gcn", "gcn", "gcn")
    lr: PositiveFloat = 0.005
    patience: PositiveInt | None = None
    tau: PositiveFloat = 3.0
    kd_weight: NonNegativeFloat = 1.0
    gan_weight: NonNegativeFloat = 1.0
    warmup: Annotated[int, Field(ge=0)] = 100
    width: PositiveInt = 16

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings, configs = self.mutual_settings(), self.configs()
        peers = build_peers(view, ctx.seed, configs, settings)
        judges = None
        if self.gan_weight and len(peers) > 1:
            released = self.as_released
            judges = Judges([hidden_width(config) for config in configs], self.width, ctx.seed, rectified=released)
            judges = judges.to(view.device)
            judges.optimiser = adam(judges, lr=self.lr, weight_decay=self.weight_decay)
        return train_peers(
            view, ctx, peers, settings, partial(self.losses, multi_label=view.multi_label, judges=judges)
        )[0]

    def losses(
        self, joint: JointForward, *, multi_label: bool, judges: Judges | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits, count = joint.logits, len(joint.logits)
        loss = label_losses(joint, logits, multi_label=multi_label)
        diagnostics = {"ce": loss.mean()}
        if joint.epoch <= self.warmup or count == 1:
            return loss, diagnostics
        if self.kd_weight:
            kd = torch.stack([self._imitation(joint, i, multi_label) for i in range(count)])
            loss, diagnostics["kd"] = loss + self.kd_weight * kd, kd.mean()
        if judges is not None:
            features = node_features(joint)
            diagnostics["judge"] = judges.step([h.detach() for h in features], joint.inputs.graph)
            fooled = judges.fooled(features, joint.inputs.graph)
            loss, diagnostics["fooled"] = loss + self.gan_weight * fooled, fooled.mean()
        return loss, diagnostics

    def _imitation(self, joint: JointForward, i: int, multi_label: bool) -> Tensor:
        labelled = [z[joint.rows] for z in joint.logits]
        others = torch.stack([z.detach() for j, z in enumerate(labelled) if j != i]).mean(dim=0)
        kl = tempered_kl(others, labelled[i], tau=self.tau, multi_label=multi_label)
        return kl / others.numel() if self.as_released else kl

    @property
    def label(self) -> str:
        plain = "" if self.gan_weight else " without discriminators"
        return f"OAD{plain}, {len(self.peers)} x {self.peers[0].upper()}"


class Judges(nn.Module):
    """A discriminator for each student: two convolutions (linear map, then normalised sum) of hidden features.

    Args:
        widths: of the students' last hidden layers. width: between the convolutions.
        rectified: a ReLU ends each, as in the official code: its probability is 0.5 or more.
    """

    optimiser: torch.optim.Adam

    def __init__(self, widths: list[int], width: int, seed: int, *, rectified: bool) -> None:
        super().__init__()
        self.rectified = rectified
        draws = [Randomness(seed, k) for k in range(len(widths))]
        self.first = nn.ModuleList(
            FeatureLinear(size, width, name="judge.first", randomness=r) for size, r in zip(widths, draws, strict=True)
        )
        self.second = nn.ModuleList(FeatureLinear(width, 1, name="judge.second", randomness=r) for r in draws)

    def forward(self, i: int, features: Tensor, graph: CSRGraph) -> Tensor:
        """[N, 1] logits of discriminator `i`: how sure it is that ``features: [N, H]`` are its own student's."""
        weight = gcn_weight(graph, features.dtype)
        inner = torch.relu(spmm(graph, self.first[i](features), weight))
        out = spmm(graph, self.second[i](inner), weight)
        return torch.relu(out) if self.rectified else out

    def step(self, features: list[Tensor], graph: CSRGraph) -> Tensor:
        """One optimiser step on telling each student's detached features from its predecessor's; the mean loss."""
        self.optimiser.zero_grad(set_to_none=True)
        losses = [
            _bce(self(i, h, graph), 1.0) + _bce(self(i, features[i - 1], graph), 0.0) for i, h in enumerate(features)
        ]
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    def fooled(self, features: list[Tensor], graph: CSRGraph) -> Tensor:
        """[K] how far each student is from being taken for its successor."""
        count = len(features)
        return torch.stack([_bce(self((i + 1) % count, h, graph), 1.0) for i, h in enumerate(features)])


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
