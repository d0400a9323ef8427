"""ROD: heads on an attention over depths of propagation, taught by their own mean and by which nodes are alike.

Order: rank the pairs of nodes once where all are ranked, then in every epoch one full-batch step on the heads' labels,
the KL from their mean, and the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features, feature_rows, gcn_weight, spmm
from pydantic import Field
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear, feature_product
from gkdbench.nn.model import Model, Trace, need_graph
from gkdbench.nn.parts import KeyedDropout
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, mean_logits
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.adversarial import densified
from gkdbench.training.blocks.branches import Branch
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.method import Method
from gkdbench.training.models import nonzeros
from gkdbench.training.mutual import JointForward, MutualTrainingSettings, Peer, train_peers
from gkdbench.training.steps import adam
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat

RANKED = 10
"""Pairs that are ranked for each one that is taught as alike."""


@dataclass(frozen=True, kw_only=True)
class ROD(Method):
    """``sum_b CE_b + kd_weight sum_b KL(sg mean_b p_b || p_b; V_L) + pair_weight BCE(h_i . h_j)`` (Zhang et al. 2021).

    Every node weights its features after 0, ..., `hops` propagations by a softmax over the sigmoids of one linear
    score; the sum passes a hidden layer h and B heads, and their mean answers. (All heads read one attention, as in
    the official code.) Of pairs of nodes, those whose features have the largest cosine are taught to have large inner
    products in h (before its activation, which could not be negative after), those with the smallest small ones.

    ``as_released``: the mean is one of probabilities in training and of logits in evaluation; an equal validation
    score wins; pairs are the extremes of all N^2, ranked at once. What share of pairs counts as alike is ours.

    Args:
        hops, hidden: K, width of h. heads: B. dropout: on h.
        kd_weight, pair_weight: of the heads' mean, of the pairs. pairs: alike, and as many unlike, a step. They
            are the extremes of ten times as many, among nodes drawn for the step.
    """

    name: ClassVar[str] = "rod"
    paper: ClassVar[str] = "Zhang et al., ROD: Reception-aware Online Distillation for Sparse Graphs"
    year: ClassVar[int | None] = 2021
    arxiv: ClassVar[str] = "2107.11789"
    repository: ClassVar[str] = "zwt233/ROD"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    as_released_tie_break: ClassVar[str] = "later"
    deviations: ClassVar[tuple[str, ...]] = (
        "heads are averaged as probabilities in training and evaluation; the official code averages logits in "
        "evaluation",
        "an epoch is selected by strict improvement; the official code keeps the last epoch of each validation score",
        "pairs are ranked among nodes drawn for a step; the official code ranks all N^2",
        "propagation is part of the model, and of its latency; the official code propagates beforehand",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    hops: Annotated[int, Field(ge=0)] = 9
    hidden: PositiveInt = 128
    heads: PositiveInt = 10
    dropout: UnitFloat = 0.8
    kd_weight: NonNegativeFloat = 0.01
    pair_weight: NonNegativeFloat = 0.001
    pairs: PositiveInt = 1000
    lr: PositiveFloat = 0.02
    weight_decay: NonNegativeFloat = 5e-4
    epochs: PositiveInt = 200
    patience: PositiveInt | None = None

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        widths = (view.num_features, self.hidden, self.heads * view.num_classes)
        wide = Receptions(*widths, self.hops, self.dropout, Randomness(ctx.seed)).to(view.device)
        answer = Averaged(wide, view.num_classes, logits=self.as_released, multi_label=view.multi_label)
        predictor = Predictor(answer, needs="graph", hops=self.hops, macs=partial(_macs, widths, self.hops))
        settings = MutualTrainingSettings(lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs)
        peer = Peer(wide, predictor, adam(wide, lr=self.lr, weight_decay=self.weight_decay), "model")
        extremes = Extremes(view.inputs.features, self.pairs, whole=self.as_released) if self.pair_weight else None
        losses = partial(self.losses, view=view, extremes=extremes, randomness=wide.randomness)
        return train_peers(view, ctx, [peer], settings, losses)[0]

    def losses(
        self, joint: JointForward, *, view: TrainView, extremes: Extremes | None, randomness: Randomness
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        (trace,), several = joint.traces, view.multi_label
        labelled = trace.logits[joint.rows]
        heads = labelled.view(len(labelled), -1, view.num_classes).unbind(dim=1)
        loss = torch.stack([supervised(z, joint.labels, multi_label=several) for z in heads]).sum()
        diagnostics = {"ce": loss}
        if self.kd_weight:
            mean = averaged(torch.stack(heads, dim=1), multi_label=several)
            kl = torch.stack([kl_to_teacher(z, mean, multi_label=several) for z in heads]).sum()
            loss, diagnostics["kl"] = loss + self.kd_weight * kl, kl
        if extremes is not None:
            diagnostics["pairs"] = pair_loss(trace.hidden[0], *extremes.draw(randomness))
            loss = loss + self.pair_weight * diagnostics["pairs"]
        return loss[None], diagnostics

    @property
    def label(self) -> str:
        return f"ROD, {self.heads} heads on {self.hops} hops, {self.hidden} wide"


class Receptions(Model):
    """``h = sum_k a_k A_hat^k X W + c`` with ``a = softmax_k sigmoid(A_hat^k X w + d)`` per node; ``heads(relu(h))``.

    W and w are applied before the propagation, to the same value: propagated bags of words are dense.

    Args:
        in_features, hidden, out_features: D, H, and all heads' outputs together.
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, hops: int, dropout: float, randomness: Randomness
    ) -> None:
        super().__init__(randomness)
        self.hops = hops
        self.map = FeatureLinear(in_features, hidden, name="map", randomness=randomness)
        self.score = FeatureLinear(in_features, 1, name="score", randomness=randomness)
        self.dropout = KeyedDropout(dropout, name="dropout", randomness=randomness)
        self.heads = FeatureLinear(hidden, out_features, name="heads", randomness=randomness, init="torch")

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        graph = need_graph(graph, "ROD")
        depth = feature_product(x, torch.cat([self.map.weight, self.score.weight], dim=1))
        weight = gcn_weight(graph, depth.dtype)
        depths = [depth]
        for _ in range(self.hops):
            depths.append(spmm(graph, depths[-1], weight))
        every = torch.stack(depths, dim=1)  # [N, K + 1, H + 1]
        share = torch.sigmoid(self.score.shifted(every[:, :, -1:])).softmax(dim=1)
        hidden = self.map.shifted((share * every[:, :, :-1]).sum(dim=1))
        return Trace(self.heads(self.dropout(torch.relu(hidden))), (hidden,))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return [*self.map.parameters(), *self.score.parameters()]


class Averaged(Branch):
    """The mean of all heads of `wide`, of C classes each; of their logits, if `logits`."""

    def __init__(self, wide: Model, classes: int, *, logits: bool, multi_label: bool) -> None:
        super().__init__(wide, classes)
        self.logits, self.multi_label = logits, multi_label

    def answer(self, whole: Trace, segments: Tensor | None) -> Tensor:
        z = whole.logits.view(len(whole.logits), -1, self.classes)
        return z.mean(dim=1) if self.logits else averaged(z, multi_label=self.multi_label)


def averaged(z: Tensor, *, multi_label: bool) -> Tensor:
    """[N, C] logits of the mean probability of ``z: [N, B, C]``."""
    probability = z.sigmoid() if multi_label else z.softmax(dim=2)
    return mean_logits(probability.mean(dim=1), multi_label=multi_label)


class Extremes:
    """Pairs of nodes whose features are most alike, and least.

    Args:
        features: [N, D]. count: pairs of either kind. whole: of all pairs; else of those among nodes that are drawn.
    """

    def __init__(self, features: Features, count: int, *, whole: bool) -> None:
        self._features, self._count = features, count
        self._nodes = int(features.shape[0])
        self._drawn = math.ceil((1 + math.sqrt(1 + 8 * RANKED * count)) / 2)  # nodes with so many pairs
        self._fixed = self._of(torch.arange(self._nodes)) if whole or self._nodes <= self._drawn else None

    def draw(self, randomness: Randomness) -> tuple[Tensor, Tensor]:
        """[2, P] int64 nodes of the pairs most alike, and of those least; ties go to the first nodes."""
        if self._fixed is not None:
            return self._fixed
        generator = torch.Generator().manual_seed(randomness.key("pairs"))
        return self._of(torch.randperm(self._nodes, generator=generator)[: self._drawn].sort().values)

    def _of(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        nodes = nodes.to(self._features.device)
        unit = F.normalize(densified(feature_rows(self._features, nodes)), dim=1)
        pairs = torch.triu_indices(len(nodes), len(nodes), offset=1, device=nodes.device)
        cosine = (unit @ unit.T)[pairs[0], pairs[1]]
        order = torch.argsort(cosine, descending=True, stable=True)
        count = min(self._count, order.numel() // 2)
        return nodes[pairs[:, order[:count]]], nodes[pairs[:, order[order.numel() - count :]]]


def pair_loss(hidden: Tensor, alike: Tensor, unlike: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pairs, of the inner products of ``hidden: [N, H]``; pairs are [2, P] int64."""
    products = [(hidden[pairs[0]] * hidden[pairs[1]]).sum(dim=1) for pairs in (alike, unlike)]
    target = torch.cat([torch.ones_like(products[0]), torch.zeros_like(products[1])])
    return F.binary_cross_entropy_with_logits(torch.cat(products), target)


def _macs(widths: tuple[int, int, int], hops: int, inputs: Inputs) -> int:
    _, hidden, out = widths
    nodes, edges = len(inputs.space), inputs.graph.num_edges
    first = (nonzeros(inputs.features) + hops * edges) * (hidden + 1)
    return first + nodes * ((hops + 1) * hidden + hidden * out)
