"""RbM: an MLP of experts, of which each row uses those whose memory it points to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from gkdbench.methods._mixture import MixtureStudent, Terms, changed
from gkdbench.methods._routing import commitment, spread, variation, weight_per_expert
from gkdbench.methods._settings import Weight
from gkdbench.nn.mixture import Mixture, MixtureModel, MixtureTrace
from gkdbench.nn.rbm import RbMModel


@dataclass(frozen=True, kw_only=True)
class RbM(MixtureStudent):
    """Routing by memory (Rumiantsev and Coates 2024): pre-training, k-means of the memories, routed training.

    To the distillation loss come, per layer, ``commitment * mean_i sum_e alpha_ie (-cos(x_i, M_e))``,
    ``spread * mean_{e,e'} <M_e, sg[M_e']>`` and ``balance * CV^2`` of the experts' weight. Memories follow their rows
    by a moving average. ``model.routing`` makes the controls: "random" and "random_each" (G5), "frozen" (G6); they
    have no commitment and no spread.

    ``as_released`` starts temperature and gate at 2 and 1.1, so that outputs jump at the switch; divides
    log-probabilities by tau without making them distributions again; takes one step an epoch on summed batches;
    decays memories and moves them in attacks too; selects among pre-training epochs as well.

    Args:
        commitment: vq. spread: sim.
    """

    name: ClassVar[str] = "rbm"
    paper: ClassVar[str] = "Rumiantsev, Coates, Graph Knowledge Distillation to Mixture of Experts"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2406.11919"
    repository: ClassVar[str] = "Rufaim/routing-by-memory"
    licence: ClassVar[str] = "not recorded"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "an epoch is selected among routed ones, on validation; the release reports the best test score of any epoch",
        "temperature and gate start at 1, so that routing begins without a jump; in the release at 2 and 1.1",
        "a KL between distributions at tau; the release divides log-probabilities by tau",
        "one step per shuffled batch on means; the release steps once an epoch on the sum of all batches, in order",
        "memories have no weight decay and do not move in attacks; in the release they do",
        "patience runs from the switch; in the release also before it",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5, "pretrain": 2}

    backbone: Literal["rbm"] = "rbm"
    commitment: Weight = 0.05
    spread: Weight = 0.01

    def student(self) -> Mixture:
        config = self.backbone_config()
        if not isinstance(config, Mixture):
            raise TypeError(f"rbm wants a mixture, got {type(config).__name__}")
        return changed(config, temperature=2.0, gate_start=1.1, dropout_per="pair") if self.released else config

    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> Terms:
        terms: Terms = {}
        if not trace.routings:
            return terms
        by_memory = self.model["routing"] == "memory" and isinstance(model, RbMModel)
        if self.commitment and by_memory:
            terms["commitment"] = self.commitment * torch.stack([commitment(r) for r in trace.routings]).sum()
        if self.spread and by_memory and isinstance(model, RbMModel):
            terms["spread"] = self.spread * torch.stack([spread(m.directions) for m in model.memories]).sum()
        if self.balance:
            experts = self.model["experts"]
            unevenness = [variation(weight_per_expert(r, experts)) for r in trace.routings]
            terms["balance"] = self.balance * torch.stack(unevenness).sum()
        return terms
