"""KDCL: peers that learn from one target made of all of them.

Order: build the peers, set the held-out items aside where the target needs them, then in every step one forward of all
peers, their cross-entropies, the common target, and one KL per peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeTable
from gkdbench.errors import UserError
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.ramp_up import tempered_kl
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import LogitMutualMethod, label_losses
from gkdbench.training.types import NonNegativeFloat, PositiveFloat

STEPS, FIRST_STEP, DECAY = 40, 2.0, 0.85
"""Of the search for simplex weights: the last step moves a log-ratio by less than 0.01."""
RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class KDCL(LogitMutualMethod):
    """``L_i = c CE_i + lam T^2 KL(sg softmax(z_t / T) || softmax(z_i / T))``, one z_t for all (Guo et al. 2020).

    z_t is, of the target called
    naive: the logits of the peer with the lowest cross-entropy in this step, which itself gets no transfer;
    linear: their mixture with the simplex weights of lowest cross-entropy;
    minlogit: per class the least ``z_ic - z_iy`` over peers, on labelled items only, as it needs the label;
    mean: their mean;
    general: their mixture with weights ``C^-1 1 / 1' C^-1 1``, C the covariance of the peers' errors on labelled
    items that are held out of the cross-entropy (a share of the training items, never of validation).

    There is no official code. A public simplification is the recipe ``shaoeric_kdcl``. Peers differ in their dropout
    masks, where the paper gives each its own augmentation.

    Args:
        lam: weight of the transfer; 0 trains K solo models. ce_weight: c.
        tau: T. holdout: share of the training items that general sets aside.
    """

    name: ClassVar[str] = "kdcl"
    paper: ClassVar[str] = "Guo et al., Online Knowledge Distillation via Collaborative Learning"
    year: ClassVar[int | None] = 2020
    repository: ClassVar[str] = "shaoeric/Online-Knowledge-Distillation-via-Collaborative-Learning"
    licence: ClassVar[str] = "not checked"
    deviations: ClassVar[tuple[str, ...]] = (
        "no official code: targets follow the paper as recalled; the repository named is a simplification by others",
        "peers differ by dropout, not by augmentation",
    )
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"lam": (0.0,)}

    target: Literal["naive", "linear", "minlogit", "mean", "general"] = "linear"
    lam: NonNegativeFloat = 1.0
    ce_weight: NonNegativeFloat = 1.0
    tau: PositiveFloat = 3.0
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def why_one_label(self) -> str:
        if self.target == "minlogit":
            return "minlogit compares the logits of classes; use target = linear, naive, mean or general"
        return super().why_one_label()

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        if self.target == "minlogit" and view.multi_label:
            raise UserError(f"kdcl: expected one label per item, got several: {self.why_one_label()}")
        settings = self.mutual_settings()
        peers = build_peers(view, ctx.seed, self.configs(), settings)
        held = self._held_out(view, ctx.seed) if self.target == "general" and self.lam else None
        losses = partial(self.losses, multi_label=view.multi_label, held=held)
        return train_peers(view, ctx, peers, settings, losses)[0]

    def losses(
        self, joint: JointForward, *, multi_label: bool, held: NodeTable | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        aside = joint
        if held is not None:
            out = held[joint.inputs.everything.within(held.space).take(joint.rows)]
            aside = replace(joint, rows=joint.rows[out], labels=joint.labels[out])
            joint = replace(joint, rows=joint.rows[~out], labels=joint.labels[~out])
        if len(joint.rows):
            hard = label_losses(joint, joint.logits, multi_label=multi_label)
        else:  # a batch whose items are all set aside
            hard = torch.stack([logits.sum() * 0.0 for logits in joint.logits])
        if not self.lam or len(joint.logits) == 1:
            return self.ce_weight * hard, {}
        z = torch.stack([logits.detach() for logits in joint.logits])  # [K, N, C]
        chosen = joint.rows if self.target == "minlogit" else slice(None)
        learners = torch.ones_like(hard)
        if self.target == "naive":
            best = int(hard.argmin())
            target, learners[best] = z[best], 0.0
        elif self.target == "minlogit":
            own = z[:, joint.rows].gather(2, joint.labels.expand(len(z), -1)[..., None])
            target = (z[:, joint.rows] - own).amin(dim=0)
        else:
            target = torch.einsum("k,knc->nc", self._shares(z, joint, aside, multi_label), z)
        kl = partial(tempered_kl, target, tau=self.tau, multi_label=multi_label)
        soft = torch.stack([kl(logits[chosen]) for logits in joint.logits]) * learners
        return self.ce_weight * hard + self.lam * soft, {"ce": hard.mean(), "soft": soft.mean()}

    def _shares(self, z: Tensor, joint: JointForward, aside: JointForward, multi_label: bool) -> Tensor:
        """[K] of the mixture, sum 1."""
        if self.target == "linear":
            return simplex_weights(z[:, joint.rows], joint.labels, multi_label=multi_label)
        if self.target == "general" and len(aside.rows):
            return error_weights(z[:, aside.rows], aside.labels, multi_label=multi_label)
        return z.new_full((len(z),), 1 / len(z))

    def _held_out(self, view: TrainView, seed: int) -> NodeTable:
        """[N] bool, which labelled items the cross-entropy does not see."""
        count = max(int(self.holdout * len(view.train)), 1)
        order = torch.randperm(len(view.train), generator=Randomness(seed).initial("holdout"))[:count]
        mask = torch.zeros(len(view.items), dtype=torch.bool, device=view.device)
        mask[view.train.position[order.to(view.device)]] = True
        return NodeTable(view.items, mask)

    @property
    def label(self) -> str:
        if not self.lam:
            return f"solo (KDCL with lam = 0), {self.peers_label()}"
        return f"KDCL ({self.target}), {self.peers_label()}"


def simplex_weights(z: Tensor, labels: Tensor, *, multi_label: bool) -> Tensor:
    """[K] non-negative weights of sum 1 with the least cross-entropy of ``sum_k w_k z_k``, ``z: [K, L, C]``.

    Exponentiated gradient with steps of falling length; the problem is convex.
    """
    log_w = z.new_zeros(len(z))
    for t in range(STEPS):
        w = log_w.softmax(dim=0)
        slope = (z * _errors(torch.einsum("k,klc->lc", w, z), labels, multi_label)).sum(dim=(1, 2))
        slope = slope - (w * slope).sum()
        log_w = log_w - FIRST_STEP * DECAY**t * slope / slope.abs().max().clamp_min(1e-30)
    return log_w.softmax(dim=0)


def error_weights(z: Tensor, labels: Tensor, *, multi_label: bool) -> Tensor:
    """[K] ``C^-1 1 / 1' C^-1 1``, C the second moments of the errors of the K predictions, ``z: [K, L, C]``."""
    errors = torch.stack([_errors(logits, labels, multi_label).flatten() for logits in z])
    moments = errors @ errors.t()
    moments = moments + RIDGE * moments.diagonal().mean().clamp_min(1e-30) * torch.eye(len(z)).to(moments)
    solved: Tensor = torch.linalg.solve(moments, moments.new_ones(len(z)))
    return solved / solved.sum()


def _errors(logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    """[L, C] prediction minus label, 0 where it is unknown."""
    if multi_label:
        return (logits.sigmoid() - labels).nan_to_num()
    return logits.softmax(dim=1) - F.one_hot(labels, logits.size(1))
