"""ONE: branches on one trunk, taught by their own gated mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Model, Trace
from gkdbench.nn.parts import BatchNorm
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.branches import Branch
from gkdbench.training.blocks.ramp_up import RELEASED_EPSILON, RELEASED_RAMP, ramp, tempered_kl
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build, hidden_width
from gkdbench.training.mutual import JointForward, MutualTrainingSettings, Peer, train_peers
from gkdbench.training.mutual_method import features_of_items
from gkdbench.training.steps import adam
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat


@dataclass(frozen=True, kw_only=True)
class ONE(SingleModelMethod):
    """``sum_b CE_b + CE(z_m) + lam w(e) sum_b T^2 KL(sg softmax(z_m / T) || softmax(z_b / T))``.

    ``z_m = sum_b g_b z_b``. B last layers on one trunk: the backbone with B times the outputs. ``g = softmax(relu(BN(
    linear)))`` of the trunk's features, per item; ``w(e) = exp(-5 (1 - e / ramp)^2)`` (Lan et al. 2018). Branch 0 is
    the reported model; the gated mixture is the ensemble's row. (A GAT's branches share their last layer's attention.)

    ``as_released`` adds 1e-7 to the targets, and its ramp is 80 epochs. The official code is for images.

    Args:
        branches: B. lam: weight of the transfer; 0 trains the branches without a gate, one branch is then the solo run.
        tau: T. ramp_share: length of the ramp, of the epochs.
    """

    name: ClassVar[str] = "one"
    paper: ClassVar[str] = "Lan, Zhu, Gong, Knowledge Distillation by On-the-Fly Native Ensemble"
    year: ClassVar[int | None] = 2018
    arxiv: ClassVar[str] = "1806.04606"
    repository: ClassVar[str] = "Lan1991Xu/ONE_NeurIPS2018"
    licence: ClassVar[str] = "MIT"
    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "a graph form: branches are the last layer of a GNN, the official code's are blocks of an image network",
        "targets are probabilities; the official code adds 1e-7 to each",
        "the ramp is a share of the epochs; the official code's is 80 epochs",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"lam": (0.0,)}

    backbone: str = "gcn"
    epochs: PositiveInt = 200
    branches: PositiveInt = 3
    lam: NonNegativeFloat = 1.0
    tau: PositiveFloat = 3.0
    ramp_share: UnitFloat = 0.2

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config, classes = self.backbone_config(), view.num_classes
        settings = MutualTrainingSettings(
            lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs, batch_size=self.batch_size
        )
        wide = build(config, replace(view, num_classes=self.branches * classes), seed=ctx.seed)
        branch = as_predictor(config, Branch(wide, classes), classes)
        if not self.lam:
            alone = Peer(wide, branch, adam(wide, lr=self.lr, weight_decay=self.weight_decay), "branch")
            return train_peers(view, ctx, [alone], settings, partial(self.losses, view=view, gate=None))[0]
        gate = BranchGate(hidden_width(config), self.branches, Randomness(ctx.seed)).to(view.device)
        both, own = nn.ModuleList([wide, gate]), list(wide.parameters())
        peer = Peer(wide, branch, adam(both, lr=self.lr, weight_decay=self.weight_decay, decayed=own), "branch")
        mixture = as_predictor(config, BranchMixture(wide, gate, classes), self.branches * classes)
        return train_peers(view, ctx, [peer], settings, partial(self.losses, view=view, gate=gate), mixture)[0]

    def losses(
        self, joint: JointForward, *, view: TrainView, gate: BranchGate | None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        (trace,), hard = joint.traces, partial(supervised, labels=joint.labels, multi_label=view.multi_label)
        z = trace.logits.view(len(trace.logits), -1, view.num_classes)  # [N, B, C]
        branches = z.unbind(dim=1)
        loss = torch.stack([hard(logits[joint.rows]) for logits in branches]).sum()
        if gate is None:
            return loss[None], {}
        released = self.as_released
        mixed = gate(trace, joint.inputs.segments, z)
        kl = partial(tempered_kl, mixed.detach(), tau=self.tau, multi_label=view.multi_label)
        soft = torch.stack([kl(logits, epsilon=RELEASED_EPSILON if released else 0.0) for logits in branches]).sum()
        weight = self.lam * ramp(joint.epoch, RELEASED_RAMP if released else self.ramp_share * self.epochs)
        return (loss + hard(mixed[joint.rows]) + weight * soft)[None], {"ce": loss, "soft": soft}

    @property
    def label(self) -> str:
        return f"ONE, {self.branches} branches, {self.model_label()}"


class BranchGate(nn.Module):
    """The weights of the branches, per item, from the trunk's features.

    Args:
        width: H, of the features. branches: B.
    """

    def __init__(self, width: int, branches: int, randomness: Randomness) -> None:
        super().__init__()
        self.linear = FeatureLinear(width, branches, name="gate", randomness=randomness, bias=False)
        self.norm = BatchNorm(branches)

    def forward(self, trace: Trace, segments: Tensor | None, z: Tensor) -> Tensor:
        """Mixed logits [N, C] of ``z: [N, B, C]``; gradient flows through both."""
        share = torch.relu(self.norm(self.linear(features_of_items(trace, segments)))).softmax(dim=1)
        return (share[:, :, None] * z).sum(dim=1)


class BranchMixture(Branch):
    """The gated mixture of all branches of `wide`."""

    def __init__(self, wide: Model, gate: BranchGate, classes: int) -> None:
        super().__init__(wide, classes)
        self.gate = gate

    def answer(self, whole: Trace, segments: Tensor | None) -> Tensor:
        mixed: Tensor = self.gate(whole, segments, whole.logits.view(len(whole.logits), -1, self.classes))
        return mixed
