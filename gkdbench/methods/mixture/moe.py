"""MoE: the plain sparse mixture of experts with a learned router, RbM's baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gkdbench.methods.mixture._losses import load, variation
from gkdbench.methods.mixture._student import MixtureStudent, changed
from gkdbench.methods.mixture._types import LossTerms
from gkdbench.nn.mixture import MixtureConfig, MixtureModel, MixtureTrace, Routing


@dataclass(frozen=True, kw_only=True)
class MoE(MixtureStudent):
    """A mixture with a linear or cosine router, trained as RbM; ``balance * E sum_e f_e P_e`` evens out the load.

    f_e is the share of (row, expert) pairs that expert e has, P_e the mean probability that the router gives it
    (Fedus et al. 2022, eq. 4).

    ``as_released`` has the published router (k + 1 experts, weights that do not sum to 1, noise), pre-trains expert e
    on the e-th slice of each batch, and balances by ``CV^2(importance) + CV^2(load)``; its temperature starts at 2.
    """

    name: ClassVar[str] = "moe"
    paper: ClassVar[str] = "baseline of Rumiantsev, Coates, Graph Knowledge Distillation to Mixture of Experts"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2406.11919"
    repository: ClassVar[str] = "Rufaim/routing-by-memory"
    licence: ClassVar[str] = "MIT"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "exactly k experts, with weights that sum to 1; the official code uses k + 1 with a softmax over all",
        "expert 0 is pre-trained and copied, as in RbM; the official code trains experts on slices of a batch by "
        "position; items come in a random order in both forms, there in the file's",
        "the load loss is differentiable (share times probability); the official code counts rows, without a gradient",
        "selection, KL, steps, temperature and options as in RbM's corrected form",
    )
    revision: ClassVar[int] = 2
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5, "pretrain": 2}

    backbone: Literal["moe"] = "moe"

    def student(self) -> MixtureConfig:
        config = self.backbone_config()
        if not isinstance(config, MixtureConfig):
            raise TypeError(f"moe: expected a mixture, got {type(config).__name__}")
        return changed(config, temperature=2.0, router="released", dropout_per="pair") if self.as_released else config

    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> LossTerms:
        if not self.balance or not trace.routings:
            return {}
        unevenness = released_balance if self.as_released else switch_balance
        return {"balance": self.balance * torch.stack([unevenness(routing) for routing in trace.routings]).sum()}


def switch_balance(routing: Routing) -> Tensor:
    """``E sum_e f_e P_e``: 1 when all experts have equal shares."""
    probability = probabilities(routing)
    experts = probability.size(1)
    share = load(routing, experts) / routing.index.numel()
    return experts * (share * probability.mean(0)).sum()


def released_balance(routing: Routing) -> Tensor:
    """``CV^2(importance) + CV^2(load)``; the second has no gradient."""
    probability = probabilities(routing)
    return variation(probability.sum(0)) + variation(load(routing, probability.size(1)))


def probabilities(routing: Routing) -> Tensor:
    """[N, E] of a router that has them."""
    if routing.probability is None:
        raise ValueError("routing: expected probabilities of all experts, got a router without them")
    return routing.probability
