"""OKDDip: auxiliary peers that learn from their attention over each other, and a leader that learns from their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.ramp_up import RELEASED_EPSILON, RELEASED_RAMP, ramp, tempered_kl
from gkdbench.training.models import hidden_width
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import MutualMethod, item_features, label_losses
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class OKDDip(MutualMethod):
    """``sum_i CE_i + CE_leader + a w(e) (sum_i T^2 KL(x_i || z_i) + T^2 KL(mean_i z_i || leader))``.

    Peer 0 is the leader, the only one deployed; the others are auxiliaries. ``x_i = sum_j A_ij z_j`` over auxiliaries,
    i itself included, ``A = softmax(Q K^T)`` per item from bias-free maps of their last hidden features to an eighth of
    their width (Chen et al. 2020). ``w(e) = exp(-5 (1 - e / ramp)^2)``.

    Targets are constants: gradient flows through x_i into Q and K alone. ``as_released``: into the logits and
    features that make the target too, so that a peer is also pulled by those who learn from it; 1e-7 is added to every
    target, and the ramp is 80 epochs. The official code is for images: there is no item without a label.

    Args:
        lam: a; 0 trains only the leader, on labels.
        tau: T. ramp_share: length of the ramp, of the epochs.
        gate: attention, or uniform over auxiliaries.
        nodes: where peers imitate: every observed item, or the labelled ones.
    """

    name: ClassVar[str] = "okddip"
    paper: ClassVar[str] = "Chen, Mei, Wang, Feng, Chen, Online Knowledge Distillation with Diverse Peers"
    year: ClassVar[int | None] = 2020
    arxiv: ClassVar[str] = "1912.00350"
    repository: ClassVar[str] = "DefangChen/OKDDip-AAAI2020"
    licence: ClassVar[str] = "none stated"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "targets are detached but for the attention; the official code's also pull the peers that make them",
        "targets are probabilities; the official code adds 1e-7 to each",
        "the ramp is a share of the epochs; the official code's is 80 epochs",
    )

    peers: Annotated[tuple[str, ...], Field(min_length=2)] = ("gcn", "gcn", "gcn", "gcn")
    lam: NonNegativeFloat = 1.0
    tau: PositiveFloat = 3.0
    ramp_share: UnitFloat = 0.2
    gate: Literal["attention", "uniform"] = "attention"
    nodes: Literal["all", "train"] = "all"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings, configs = self.mutual_settings(), self.configs()[: None if self.lam else 1]
        gate, owned = None, []
        if self.lam and self.gate == "attention":
            gate = PeerAttention(hidden_width(configs[1]), Randomness(ctx.seed, 1)).to(view.device)
            owned = [gate if k == 1 else nn.Identity() for k in range(len(configs))]
        peers = [
            replace(peer, name="leader" if k == 0 else f"auxiliary{k}", deployed=k == 0)
            for k, peer in enumerate(build_peers(view, ctx.seed, configs, settings, owned=owned))
        ]
        return train_peers(view, ctx, peers, settings, partial(self.losses, multi_label=view.multi_label, gate=gate))[0]

    def losses(
        self, joint: JointForward, *, multi_label: bool, gate: PeerAttention | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        hard = label_losses(joint, joint.logits, multi_label=multi_label)
        if not self.lam:
            return hard, {}
        released = self.as_released
        kl = partial(tempered_kl, tau=self.tau, multi_label=multi_label, epsilon=RELEASED_EPSILON if released else 0.0)
        chosen = joint.rows if self.nodes == "train" else slice(None)
        leader, *auxiliaries = (z[chosen] for z in joint.logits)
        sources = torch.stack(auxiliaries if released else [z.detach() for z in auxiliaries], dim=1)  # [N, M, C]
        if gate is None:
            share = sources.new_full((1, len(auxiliaries), len(auxiliaries)), 1 / len(auxiliaries))
        else:
            features = [x[chosen] for x in item_features(joint)[1:]]
            share = gate(features if released else [x.detach() for x in features])
        targets = (share @ sources).unbind(dim=1)
        pairs = [(sources.mean(dim=1), leader), *zip(targets, auxiliaries, strict=True)]
        soft = torch.stack([kl(target, z) for target, z in pairs])
        weight = self.lam * ramp(joint.epoch, RELEASED_RAMP if released else self.ramp_share * self.epochs)
        return hard + weight * soft, {"ce": hard.mean(), "soft": soft.mean()}

    @property
    def label(self) -> str:
        uniform = ", uniform gate" if self.gate == "uniform" else ""
        return f"OKDDip{uniform}, {self.peers[0].upper()} led by {len(self.peers) - 1}"


class PeerAttention(nn.Module):
    """``softmax(Q K^T)`` over M peers, per item.

    Args:
        width: H, of the features; queries and keys are an eighth of it.
        randomness: of the peer that owns it.
    """

    def __init__(self, width: int, randomness: Randomness) -> None:
        super().__init__()
        inner = max(width // 8, 1)
        self.query = FeatureLinear(width, inner, name="gate.query", randomness=randomness, bias=False)
        self.key = FeatureLinear(width, inner, name="gate.key", randomness=randomness, bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[N, M, M] from M tensors [N, H]; row i is how much peer i heeds each."""
        queries, keys = (torch.stack([part(x) for x in features], dim=1) for part in (self.query, self.key))
        return (queries @ keys.transpose(1, 2)).softmax(dim=2)
