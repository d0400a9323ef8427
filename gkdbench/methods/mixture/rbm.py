"""RbM: an MLP of experts, of which each row uses those whose memory it points to.

Files that `fit` enters, in order: methods/mixture/_student.py, training/fields.py, training/models.py, nn/rbm.py,
nn/mixture.py, nn/model.py, training/method.py, nn/linear.py, nn/random.py, nn/parts.py, gkdkernels/graph.py,
methods/mixture/_objective.py, methods/mixture/_targets.py, training/steps.py, training/distil.py,
gkdkernels/core/dropout.py, training/losses.py, nn/clustering.py, gkdkernels/experts/routing.py,
gkdkernels/core/dispatch.py, gkdkernels/core/indices.py, gkdkernels/core/autocast.py, gkdkernels/experts/op.py,
gkdkernels/core/registration.py, gkdkernels/core/derivatives.py, gkdkernels/experts/cpu.py,
gkdkernels/core/matmul_cpu.py, methods/mixture/_losses.py, methods/mixture/_diagnostics.py, gkdkernels/kept.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from gkdbench.methods.mixture._losses import commitment, repelled_memory, spread, variation, weight_per_expert
from gkdbench.methods.mixture._student import MixtureStudent, changed
from gkdbench.methods.mixture._types import LossTerms
from gkdbench.nn.mixture import MixtureConfig, MixtureModel, MixtureTrace
from gkdbench.nn.rbm import RbMModel
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class RbM(MixtureStudent):
    """Routing by memory (Rumiantsev and Coates 2024): pre-training, k-means of the memories, routed training.

    The layer, its cosine routing and its memory's moving average are in `gkdbench.nn.rbm` and `gkdbench.nn.mixture`,
    the stages and the distillation loss in `MixtureStudent`. To that loss come, per layer,
    ``commitment * mean_i sum_e alpha_ie (-cos(x_i, M_e))``, ``spread * mean_{e,e'} <M_e, sg[M_e']>`` and
    ``balance * CV^2`` of the experts' weight. ``model.routing`` makes the controls: "random" and "random_each"
    (protocol control G5), "frozen" (docs/protocol.md, control G6); they have no commitment and no spread.

    ``as_released`` starts temperature and gate at 2 and 1.1, so that outputs jump at the switch; divides
    log-probabilities by tau without making them distributions again; takes one step an epoch on summed batches;
    decays memories and moves them in attacks too; selects among pre-training epochs as well; shares transductive
    encodings between seeds; lets a node read its own propagated label.

    Args:
        commitment: vq. spread: sim.
    """

    name: ClassVar[str] = "rbm"
    paper: ClassVar[str] = "Rumiantsev, Coates, Graph Knowledge Distillation to Mixture of Experts"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2406.11919"
    repository: ClassVar[str] = "Rufaim/routing-by-memory"
    licence: ClassVar[str] = "MIT"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "an epoch is selected among routed ones, on validation; the official code reports the best test score of "
        "any epoch",
        "temperature and gate start at 1, so that routing begins without a jump; in the official code at 2 and 1.1",
        "a KL between distributions at tau; the official code divides log-probabilities by tau",
        "one step per shuffled batch on means; the official code steps once an epoch on the sum of all batches, "
        "in order",
        "memories do not move in attacks; in the official code they do",
        "the spread moves memories in proportion to its weight, without decay; in the official code Adam and "
        "decay move them",
        "patience runs from the switch; in the official code also before it",
        "the optimiser begins anew for all experts at the switch, in both forms; in the official code for the copied "
        "ones, while expert 0 keeps its moments of pre-training",
        "propagated labels belong to nodes by id and leave out a node's own; in the official code its own comes "
        "back, and its "
        "inductive runs read labels of other nodes, which neither form here can",
        "encodings are of the run's seed; in the official code one for all seeds where the whole graph is observed",
        "reliable sampling leaves out bins without nodes; in the official code their share of agreements is 0",
        "graphs have the loops of their split family, in both forms; the official code's CPF graphs have none",
        "items come in a random order of their own in both forms; in the official code in the file's, in which its "
        "batches are cut",
    )
    revision: ClassVar[int] = 3
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5, "pretrain": 2}
    control: ClassVar[str] = "fixed_routing"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"model.routing": ("random", "random_each", "frozen")}

    backbone: Literal["rbm"] = "rbm"
    commitment: NonNegativeFloat = 0.05
    spread: NonNegativeFloat = 0.01

    def student(self) -> MixtureConfig:
        config = self.backbone_config()
        if not isinstance(config, MixtureConfig):
            raise TypeError(f"rbm: expected a mixture, got {type(config).__name__}")
        return changed(config, temperature=2.0, gate_start=1.1, dropout_per="pair") if self.as_released else config

    def train_router(self, model: MixtureModel, optimiser: torch.optim.Optimizer) -> None:
        """The spread moves memories: in a step of its own size, or, as in the official code, by Adam.

        The moving average is a step of rate 1 down ``(1 - decay) / 2 |M_e - c_e|^2``, c_e being the mean of its rows;
        the spread joins at that rate with its weight. Adam's step has the learning rate's size in every entry whatever
        the weight, and 0.01 is large compared with 0.026, an entry of a unit row of 1,433: memories became patterns of
        signs.
        """
        memories = model.router_tensors()
        if self.as_released:
            for memory in memories:
                memory.requires_grad_()
            optimiser.add_param_group({"params": memories, "weight_decay": self.weight_decay})
        elif self.spread and self.by_memory:

            def apart(*_: object) -> None:
                for memory in memories if model.routed else []:
                    memory.copy_(repelled_memory(memory, self.spread))

            optimiser.register_step_post_hook(apart)

    @property
    def by_memory(self) -> bool:
        """Whether rows go by moving memories: controls have no loss of them."""
        return bool(self.model["routing"] == "memory")

    @property
    def label(self) -> str:
        controls = {"frozen": "frozen memories", "random": "random routing", "random_each": "routing drawn each step"}
        control = controls.get(self.model["routing"])
        return f"{super().label}, {control}" if control else super().label

    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> LossTerms:
        terms: LossTerms = {}
        if not trace.routings:
            return terms
        if self.commitment and self.by_memory:
            terms["commitment"] = self.commitment * torch.stack([commitment(r) for r in trace.routings]).sum()
        if self.spread and self.by_memory and isinstance(model, RbMModel):
            terms["spread"] = self.spread * torch.stack([spread(m.directions) for m in model.memories]).sum()
        if self.balance:
            experts = self.model["experts"]
            unevenness = [variation(weight_per_expert(r, experts)) for r in trace.routings]
            terms["balance"] = self.balance * torch.stack(unevenness).sum()
        return terms
