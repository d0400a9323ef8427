"""DML: peers that imitate each other's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from gkdkernels import mutual_kl
from torch import Tensor

from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.mutual import JointForward
from gkdbench.training.mutual_method import LogitMutualMethod, label_losses, pair_diagnostics
from gkdbench.training.types import NonNegativeFloat

RELEASED_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class DML(LogitMutualMethod):
    """``L_j = CE_j + lam / (K - 1) sum_{i != j} KL(sg p_i || p_j; S)`` (Zhang et al. 2018, eqs. 3-5), temperature 1.

    ``as_released`` sums over the peers, and adds 1e-8 within its logarithms. The official code is for images: what it
    did with nodes without a label, or with several labels, is not stated.

    Args:
        lam: weight of the mutual term; 0 trains K solo models.
        nodes: S, where peers imitate each other: every observed item, or the labelled ones.
    """

    name: ClassVar[str] = "dml"
    paper: ClassVar[str] = "Zhang, Xiang, Hospedales, Lu, Deep Mutual Learning"
    year: ClassVar[int | None] = 2018
    arxiv: ClassVar[str] = "1706.00384"
    repository: ClassVar[str] = "YingZhangDUT/Deep-Mutual-Learning"
    licence: ClassVar[str] = "MIT"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the mutual term is a mean over the other peers; the official code's is their sum",
        "the KL is exact; the official code adds 1e-8 to a quotient and to its denominator",
    )
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"lam": (0.0,)}

    lam: NonNegativeFloat = 1.0
    nodes: Literal["all", "train"] = "all"

    def losses(self, joint: JointForward, *, multi_label: bool) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = joint.logits
        others = len(logits) - 1
        mask = joint.labelled if self.nodes == "train" else None
        if self.lam == 0 or not others:
            return label_losses(joint, logits, multi_label=multi_label), {}
        if self.as_released:
            return self._as_released(joint, mask, multi_label)
        weight = logits[0].new_full((others + 1, others + 1), self.lam / others)
        loss, kl = mutual_kl(logits, pair_weight=weight, kl_mask=mask, targets=joint.targets, multi_label=multi_label)
        return loss, pair_diagnostics(kl)

    def _as_released(
        self, joint: JointForward, mask: Tensor | None, multi_label: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = joint.logits if mask is None else [z[mask] for z in joint.logits]
        kl = torch.stack([torch.stack([_released_kl(i, j, multi_label) for j in logits]) for i in logits])
        mutual = kl.sum(dim=0) - kl.diagonal()
        return label_losses(joint, joint.logits, multi_label=multi_label) + self.lam * mutual, pair_diagnostics(kl)

    @property
    def label(self) -> str:
        if not self.lam:
            return f"solo (DML with lam = 0), {self.peers_label()}"
        labelled = " on labelled items" if self.nodes == "train" else ""
        return f"DML{labelled}{'' if self.lam == 1 else f', lam {self.lam:g}'}, {self.peers_label()}"


def _released_kl(teacher: Tensor, learner: Tensor, multi_label: bool) -> Tensor:
    """``mean_n sum_c p_i log(1e-8 + p_i / (p_j + 1e-8))``."""
    if multi_label:
        return kl_to_teacher(learner, teacher, multi_label=True)
    p, q = teacher.detach().softmax(dim=1), learner.softmax(dim=1)
    return (p * (RELEASED_EPSILON + p / (q + RELEASED_EPSILON)).log()).sum(dim=1).mean()
