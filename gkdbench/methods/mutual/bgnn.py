"""BGNN-R: GNNs trained one after another, each by the one before, with a temperature per item.

Order: the earlier stages are required cells; `fit` computes item weights from all of them, then trains the last peer on
weighted labels and on the teacher's softened predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gkdbench.data.nodes import NodeTable
from gkdbench.methods.mutual._logit_weighting import LogitWeighting, collapsed
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.losses import supervised
from gkdbench.training.method import Requirement
from gkdbench.training.mutual import JointForward, build_peers, train_peers
from gkdbench.training.mutual_method import MutualMethod
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class BGNN(MutualMethod):
    """``mean_{V_L} w_v CE_v + lam mean_V softCE(softmax(t_v / tau_v), softmax(z_v / tau_v))``, t the teacher's logits.

    Peers are trained in order, each from scratch on the frozen one before it; the last alone predicts. The paper
    (Guo et al., AAAI 2023) has no official code, and two interpretations of its formulas differ. Declared here: ``tau_v
    = 1 + 3 sigmoid(MLP([t_v, H(softmax t_v)]))``, learned with the student; ``w_v`` as in SAMME.R, over all stages so
    far,
    ``prod exp(-(C - 1) / C y_v . log p_T(v))`` with y_v = 1 for the class and -1 / (C - 1) for the others, of mean 1.
    Several labels per item are each a problem of two classes.

    The cross-entropy keeps the temperature from a collapse: it falls as the teacher's target sharpens, so that a
    uniform target is the worst. Runs at the bound are flagged "collapsed" all the same.

    Args:
        lam: weight of the teacher; 0 leaves boosting alone.
        temperature: adaptive, or 1 for every item.
        boosting: whether labelled items that teachers get wrong weigh more.
        ce_on: logits of the labels' cross-entropy: raw, or divided by the temperature as an ablation.
    """

    name: ClassVar[str] = "bgnn"
    paper: ClassVar[str] = (
        "reconstruction (BGNN-R) of Guo, Zhang, Fan, Tian, Zhang, Chawla, "
        "Boosting Graph Neural Networks via Adaptive Knowledge Distillation"
    )
    year: ClassVar[int | None] = 2023
    arxiv: ClassVar[str] = "2210.05920"
    deviations: ClassVar[tuple[str, ...]] = (
        "a reconstruction: forms of temperature and weights are declared, the paper has no official code",
        "all runs are reported, and the order of teachers is fixed; the paper's tables pick the better of two teachers "
        "and, on graphs, the best 5 of 10 runs",
    )

    peers: Annotated[tuple[str, ...], Field(min_length=2)] = ("gcn", "sage")
    lam: NonNegativeFloat = 1.0
    temperature: Literal["adaptive", "one"] = "adaptive"
    boosting: bool = True
    ce_on: Literal["raw", "weighted"] = "raw"

    def requires(self) -> Mapping[str, Requirement]:
        """The stage before ("teacher"), and those before it ("stage0", ...), whose mistakes count too."""
        last = len(self.peers) - 2
        return {("teacher" if k == last else f"stage{k}"): self._stage(k) for k in range(last + 1)}

    def _stage(self, k: int) -> Requirement:
        settings: dict[str, Any] = {
            field: getattr(self, field) for field in ("lr", "weight_decay", "epochs", "patience", "batch_size")
        }
        if k == 0:
            first = self.peers[0]
            alone = {"backbone": first, "model": self.models.get(first, {}), "fanouts": [], "decay": "all"}
            return Requirement("teacher", settings | alone)
        own = {field: getattr(self, field) for field in ("lam", "temperature", "boosting", "ce_on")}
        stages = self.peers[: k + 1]
        models = {name: self.models.get(name, {}) for name in stages}
        return Requirement("bgnn", settings | own | {"peers": list(stages), "models": models})

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings, configs = self.mutual_settings(), self.configs()
        randomness = Randomness(ctx.seed, len(configs) - 1)
        unit = LogitWeighting("temp", view.num_classes, multi_label=view.multi_label, randomness=randomness).to(
            view.device
        )
        owned = [unit] * len(configs) if self._adapts else []
        student = replace(build_peers(view, ctx.seed, configs, settings, owned=owned)[-1], name="model")
        stages = [ctx.teachers[role].logits for role in self.requires()]
        labelled = [table[view.train] for table in stages] if self.boosting else []
        weight = item_weights(labelled, view.labels, multi_label=view.multi_label)
        everywhere = weight.new_zeros((len(view.items), *weight.shape[1:])).index_copy(0, view.train.position, weight)
        losses = partial(
            self.losses,
            multi_label=view.multi_label,
            teacher=NodeTable(view.items, ctx.teachers["teacher"].logits[view.inputs.everything]),
            weight=NodeTable(view.items, everywhere),
            unit=unit if self._adapts else None,
        )
        fitted, history = train_peers(view, ctx, [student], settings, losses)
        if self.boosting:
            ctx.extra["largest_item_weight"] = float(weight.max())
        if collapsed(history):
            ctx.flags.append("collapsed")
        return fitted

    def losses(
        self,
        joint: JointForward,
        *,
        multi_label: bool,
        teacher: NodeTable,
        weight: NodeTable,
        unit: LogitWeighting | None,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        items = joint.inputs.everything.within(teacher.space)
        (z,), t = joint.logits, teacher[items]
        tau = unit.temperature(t) if unit else t.new_ones((len(t), 1))
        labelled = (z / tau if self.ce_on == "weighted" else z)[joint.rows]
        hard = supervised(labelled, joint.labels, multi_label=multi_label)
        if self.boosting:
            hard = weighted_cross_entropy(labelled, joint.labels, weight[items.take(joint.rows)], multi_label)
        if not self.lam:
            return hard[None], {}
        soft = soft_cross_entropy(t / tau, z / tau, multi_label=multi_label)
        diagnostics = {"ce": hard, "soft": soft} | ({"temperature.model": tau.mean()} if unit else {})
        return (hard + self.lam * soft)[None], diagnostics

    @property
    def _adapts(self) -> bool:
        return self.temperature == "adaptive" and self.lam > 0

    @property
    def label(self) -> str:
        return f"BGNN-R, {self.peers_label().replace(' + ', ' to ')}"


def item_weights(stages: Sequence[Tensor], labels: Tensor, *, multi_label: bool) -> Tensor:
    """SAMME.R weights [L], or [L, C] with several labels: large where the `stages` (logits [L, C] each) are wrong.

    Their mean is 1 (over known labels; 0 where unknown).
    """
    log_w = torch.zeros(labels.shape, device=labels.device)
    for logits in stages:
        if multi_label:
            log_w = log_w - (2 * labels - 1) * logits / 2  # log p - log (1 - p) is the logit
        else:
            log_p, classes = F.log_softmax(logits, dim=1), logits.size(1)
            own = log_p.gather(1, labels[:, None])[:, 0]
            coded = own - (log_p.sum(dim=1) - own) / max(classes - 1, 1)  # one class: nothing is wrong
            log_w = log_w - (classes - 1) / classes * coded
    known = ~labels.isnan() if multi_label else torch.ones_like(labels, dtype=torch.bool)
    weights = log_w[known].softmax(dim=0) * known.sum()
    return torch.zeros_like(log_w).masked_scatter(known, weights)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor, multi_label: bool) -> Tensor:
    """Mean over items (known labels) of weight times cross-entropy; ``logits: [L, C]``, `weight` as `labels`."""
    if not multi_label:
        return (weight * F.cross_entropy(logits, labels, reduction="none")).mean()
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="none")
    return (weight[known] * each).sum() / known.sum().clamp(min=1)


def soft_cross_entropy(teacher: Tensor, student: Tensor, *, multi_label: bool) -> Tensor:
    """Mean over items of ``- sum_c p_T log p_S`` of logits [N, C]; with several labels also a mean over labels."""
    if multi_label:
        return F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    return -(teacher.softmax(dim=1) * F.log_softmax(student, dim=1)).sum(dim=1).mean()
