"""GML-R: a reconstruction of GML, peers that teach each other through weighted logits and stay uncertain.

Files that `fit` enters, in order: training/mutual_method.py, training/models.py, nn/gcn.py, nn/model.py, nn/sage.py,
methods/mutual/_logit_weighting.py, nn/linear.py, nn/random.py, gkdkernels/graph.py, training/mutual.py, nn/edges.py,
nn/parts.py, training/steps.py, training/loop.py, gkdkernels/core/dropout.py, gkdkernels/spmm/op.py, gkdkernels/kept.py,
gkdkernels/core/autocast.py, gkdkernels/core/dispatch.py, gkdkernels/core/derivatives.py, gkdkernels/spmm/cpu.py,
gkdkernels/mutual_kl/op.py, gkdkernels/mutual_kl/arguments.py, gkdkernels/core/registration.py,
gkdkernels/core/indices.py, gkdkernels/mutual_kl/cpu.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from gkdkernels import mutual_kl
from torch import Tensor

from gkdbench.methods.mutual._logit_weighting import (
    LogitWeighting,
    collapsed,
    uncertainty,
    weighted_predictor,
    weighting_diagnostics,
)
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import LogitMutualMethod, label_losses, pair_diagnostics
from gkdbench.training.types import NonNegativeFloat

Nodes = Literal["all", "train"]


@dataclass(frozen=True, kw_only=True)
class GML(LogitMutualMethod):
    """``L_j = CE(zt_j; V_L) + lam / (K - 1) sum_{i != j} KL(sg p_i || p_j; S) - beta mean_{S_e} H(softmax z_j)``.

    ``p_j = softmax(zt_j)``, and ``zt_j`` are the logits weighted by a module that peer j owns (`LogitWeighting`).
    Neither the paper's body nor its code nor its tables are public: of the three parts (mutual learning, an adaptive
    logit weighting unit, an entropy bonus) the reviews mention that they exist; every formula and number is ours.

    A unit that only the KL sees makes it small by making every prediction uniform. Temperatures are bounded, gates
    have mean 1, and the cross-entropy sees the weighted logits; runs in which the weights vanish all the same are
    flagged "collapsed".

    A peer predicts by the logits that its cross-entropy sees.

    Args:
        weighting: none (DML), temp (a temperature per item), gate (weights per class of mean 1), or sig (weights per
            class in (0, 1): kept to show the collapse). Without a transfer there is nothing to weight.
        ce_on: logits of the cross-entropy.
        lam: weight of the mutual term; 0 with beta = 0 trains K solo models.
        beta: weight of the entropy; a positive one keeps predictions uncertain.
        nodes: S, where peers learn from each other. entropy_nodes: S_e. Every observed item, or the labelled ones.
    """

    name: ClassVar[str] = "gml"
    paper: ClassVar[str] = (
        "reconstruction (GML-R) of Agbaje, Mitra, Anjum, Khose, Nwafor, Olufowobi, "
        "Enhancing Graph Neural Networks: A Mutual Learning Approach"
    )
    year: ClassVar[int | None] = 2025
    arxiv: ClassVar[str] = "2510.19223"
    deviations: ClassVar[tuple[str, ...]] = (
        "a reconstruction: the weighting's formula, all weights, node sets, widths and schedules are ours",
    )

    weighting: Literal["none", "temp", "gate", "sig"] = "temp"
    ce_on: Literal["weighted", "raw"] = "weighted"
    lam: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 0.01
    nodes: Nodes = "all"
    entropy_nodes: Nodes = "train"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings, configs, weightings = self.mutual_settings(), self.configs(), self._make_weightings(view, ctx.seed)
        peers = build_peers(view, ctx.seed, configs, settings, owned=weightings)
        if self.ce_on == "weighted":
            for k, unit in enumerate(weightings):
                answer = weighted_predictor(configs[k], peers[k].model, unit, view.num_classes)
                peers[k] = replace(peers[k], predictor=answer)
        losses = partial(self.losses, multi_label=view.multi_label, weightings=weightings)
        fitted, history = train_peers(view, ctx, peers, settings, losses)
        ctx.extra |= {name: value for name, value in history[-1].items() if name.startswith(("scale", "temperature"))}
        if collapsed(history):
            ctx.flags.append("collapsed")
        return fitted

    def losses(
        self, joint: JointForward, *, multi_label: bool, weightings: Sequence[LogitWeighting] = ()
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        raw, others = joint.logits, len(joint.logits) - 1
        if self.beta == 0 and not self._transfers:
            return label_losses(joint, raw, multi_label=multi_label), {}
        weighted = [unit(z) for unit, z in zip(weightings, raw, strict=True)] if weightings else raw
        of_nodes = {"all": None, "train": joint.labelled}
        lam = self.lam / max(others, 1)
        loss, kl = mutual_kl(
            weighted,
            pair_weight=raw[0].new_full((others + 1, others + 1), lam),
            kl_mask=of_nodes[self.nodes],
            targets=joint.targets,
            ce_logits=weighted if self.ce_on == "weighted" else raw,
            entropy_logits=raw,
            entropy_mask=of_nodes[self.entropy_nodes],
            entropy_weight=self.beta,
            multi_label=multi_label,
        )
        with torch.no_grad():
            spread = {f"entropy.peer{k}": uncertainty(z, multi_label=multi_label).mean() for k, z in enumerate(raw)}
        weights = weighting_diagnostics(weightings, raw, weighted) if weightings else {}
        return loss, pair_diagnostics(kl) | spread | weights

    @property
    def _transfers(self) -> bool:
        return self.lam > 0 and len(self.peers) > 1

    def _make_weightings(self, view: TrainView, seed: int) -> list[LogitWeighting]:
        """Every peer's unit, drawn from its own randomness; none where nothing is weighted."""
        if self.weighting == "none" or not self._transfers:
            return []
        kind, several = self.weighting, view.multi_label
        return [
            LogitWeighting(kind, view.num_classes, multi_label=several, randomness=Randomness(seed, k)).to(view.device)
            for k in range(len(self.peers))
        ]

    @property
    def label(self) -> str:
        unit = {"none": "", "temp": ", temperature", "gate": ", gate", "sig": ", sigmoid gate"}[self.weighting]
        if not self._transfers:
            return f"GML-R without transfer, beta {self.beta:g}, {self.peers_label()}"
        raw = ", CE on raw logits" if unit and self.ce_on == "raw" else ""
        labelled = ", KL on labelled items" if self.nodes == "train" else ""
        everywhere = " on all items" if self.beta and self.entropy_nodes == "all" else ""
        weight = "" if self.lam == 1 else f", lam {self.lam:g}"
        options = f"{unit}{raw}{labelled}{weight}, beta {self.beta:g}{everywhere}"
        return f"GML-R{options}, {self.peers_label()}"
