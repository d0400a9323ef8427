"""A control of methods that learn who teaches: on every item the peer that is better there teaches the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import mutual_kl
from torch import Tensor

from gkdbench.methods.mutual._logit_weighting import uncertainty
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import LogitMutualMethod, label_losses, pair_diagnostics
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class LowerCE(LogitMutualMethod):
    """``L_j = CE_j + lam / (K - 1) sum_{i != j} mean over the items that i teaches of KL(sg p_i || p_j)``.

    A labelled item is taught by the peer of the lowest cross-entropy there, any other by that of the lowest entropy;
    the earlier peer where two are equal. A control of FreeKD-like methods, which learn the direction by reinforcement.

    Args:
        lam: weight of the mutual term; 0 trains K solo models.
        direction: lower; or random (drawn again for every item and step), or higher, which should hurt.
    """

    name: ClassVar[str] = "lower_ce"
    paper: ClassVar[str] = "control: the direction of transfer decided by the lower cross-entropy"
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"lam": (0.0,)}

    lam: NonNegativeFloat = 1.0
    direction: Literal["lower", "random", "higher"] = "lower"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings = self.mutual_settings()
        peers = build_peers(view, ctx.seed, self.configs(), settings)
        draws = Randomness(ctx.seed, len(peers))
        losses = partial(self.losses, multi_label=view.multi_label, draws=draws)
        return train_peers(view, ctx, peers, settings, losses)[0]

    def losses(
        self, joint: JointForward, *, multi_label: bool, draws: Randomness | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits, count = joint.logits, len(joint.logits)
        if self.lam == 0 or count == 1:
            return label_losses(joint, logits, multi_label=multi_label), {}
        teaches = F.one_hot(self._teachers(joint, multi_label, draws), count).to(logits[0].dtype)  # [N, K]
        share = teaches.mean(dim=0)
        weight = self.lam / (count - 1) * teaches / share.clamp_min(1 / len(teaches))
        loss, kl = mutual_kl(logits, pair_weight=weight[..., None], targets=joint.targets, multi_label=multi_label)
        return loss, pair_diagnostics(kl) | {f"teaches.peer{k}": share[k] for k in range(count)}

    @torch.no_grad()
    def _teachers(self, joint: JointForward, multi_label: bool, draws: Randomness | None) -> Tensor:
        """[N] int64 who teaches each item."""
        count, items = len(joint.logits), len(joint.logits[0])
        if self.direction == "random" and draws is not None:
            draws.step += 1
            generator = torch.Generator().manual_seed(draws.key("teacher"))
            return torch.randint(count, (items,), generator=generator).to(joint.rows.device)
        score = torch.stack([uncertainty(z, multi_label=multi_label) for z in joint.logits])  # [K, N]
        score[:, joint.rows] = torch.stack([_each(z[joint.rows], joint.labels) for z in joint.logits])
        return score.argmax(dim=0) if self.direction == "higher" else score.argmin(dim=0)

    @property
    def label(self) -> str:
        if not self.lam:
            return f"solo (lower CE teaches with lam = 0), {self.peers_label()}"
        return (
            f"{self.direction.capitalize()}{'' if self.direction == 'random' else ' CE'} teaches, {self.peers_label()}"
        )


def _each(logits: Tensor, labels: Tensor) -> Tensor:
    """[L] cross-entropy of each item; with several labels the mean over known ones, 0 without any."""
    if not labels.is_floating_point():
        return F.cross_entropy(logits, labels, reduction="none")
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (each * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
