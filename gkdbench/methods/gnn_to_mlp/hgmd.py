"""HGMD: an MLP that learns from neighbours chosen by how hard its own node is, mixed into its node's target.

Order: in every epoch the hardness of each node from teacher and student (from epoch 2), the probabilities of pairs, the
draw of pairs, their targets, then one full-batch step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from gkdkernels import spmm
from torch import Tensor

from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.pairs import EDGES_AT_ONCE, PairTargets, drawn, entropies, pair_kl, without_loops
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.node_pairs import PairTermsFunction, train_on_pairs
from gkdbench.training.types import PositiveFloat, UnitFloat

CITATIONS = ("cora", "citeseer", "pubmed")
SMOOTHING = 1e-6


@dataclass(frozen=True, kw_only=True)
class HGMD(DistilledStudent):
    """``lambda * CE(V_L) + (1 - lambda) * mean over pairs (i, j) of KL(target || softmax(z_S,i / tau))``
    (Wu et al. 2024), full batch.

    Pairs are all (i, i), and from epoch 2 the edges j -> i, each with probability
    ``prob = 1 - exp(-a_t cos(p_T,i, p_T,j) sqrt(H_T,i H_S,i) / H_T,j)``, entropies over their largest,
    ``a_t = a 100^(-(t - 1) / (T - 1))`` in epoch t of at most T. Epoch 1 has all edges, with prob = 1.

    ``as_released`` smooths mixed targets by 1e-6 off the citation sets, and lets a tie on validation win.

    Args:
        label_weight: lambda. tau: temperature of both sides, without a factor tau^2.
        hardness: a. beta: b.
        mode: target of a pair: "vanilla" p_T,j; "mixup" ``(1 - w) p_T,i + w p_T,j`` with ``w = prob * Beta(b, b)``;
            "weight" p_T,j, its KL weighed by cos * prob, which is scaled to mean 1 over the pairs of i.
    """

    name: ClassVar[str] = "hgmd"
    paper: ClassVar[str] = "Wu, Liu, Lin, Huang, Li, Teach Harder, Learn Poorer (HGMD)"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2407.14768"
    repository: ClassVar[str] = "LirongWu/HGMD"
    licence: ClassVar[str] = "not checked"
    one_label: ClassVar[str] = "its pairs are drawn by entropies and cosines of one distribution over classes"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "targets are the teacher's on all data sets; the official code adds 1e-6 to mixed ones off the citation sets",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
        "pairs are drawn on the device of the graph; the official code moves logits to the host in every epoch",
        "inductive runs draw pairs on the observed graph; the official code is transductive only",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    backbone: Literal["mlp"] = "mlp"
    label_weight: UnitFloat = 0.0
    tau: PositiveFloat = 1.0
    hardness: PositiveFloat = 5.0
    beta: PositiveFloat = 0.4
    mode: Literal["mixup", "vanilla", "weight"] = "mixup"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        smoothed = self.as_released and self.mode == "mixup" and view.dataset not in CITATIONS
        pairs = _Pairs(
            self, view, ctx.teachers["teacher"].logits[view.inputs.everything], SMOOTHING if smoothed else 0.0
        )
        fitted = train_on_pairs(
            view,
            ctx,
            self.backbone_config(),
            self.training_settings(),
            label_weight=self.label_weight,
            begin=pairs.begin,
        )
        ctx.extra["kept_edges"] = pairs.kept
        return fitted

    @property
    def label(self) -> str:
        return f"HGMD, {self.model_label()}"


class _Pairs:
    """The pairs of every epoch, and what the teacher asks over them.

    Attributes:
        kept: share of the edges in the last epoch.
    """

    def __init__(self, method: HGMD, view: TrainView, teacher: Tensor, smoothing: float) -> None:
        self._method = method
        edges = without_loops(view.inputs.graph)
        self._student_of, self._teacher_of = edges.row.long(), edges.index.long()
        self._targets = PairTargets(edges, _smoothed(teacher / method.tau, smoothing))
        self._alike = cosines(teacher.softmax(dim=1), self._student_of, self._teacher_of)
        self._entropy = _relative(entropies(teacher))
        self.kept = 1.0

    def begin(self, epoch: int, randomness: Randomness, answer: Callable[[], Tensor]) -> PairTermsFunction:
        """The transfer term of `epoch`; arguments as `gkdbench.training.node_pairs.BeginEpoch`."""
        probability = torch.ones_like(self._alike)
        keep = probability
        if epoch > 1:
            probability = self._probability(epoch, answer())
            keep = drawn(probability, randomness.key("pairs"))
        self.kept = float(keep.mean()) if keep.numel() else 1.0
        target = self._asked(keep, probability, randomness)
        return lambda logits: {"kl": pair_kl(logits, target, tau=self._method.tau)}

    def _probability(self, epoch: int, student_logits: Tensor) -> Tensor:
        """[E] of the edges in `epoch`."""
        spent = (epoch - 1) / max(self._method.epochs - 1, 1)
        rate = self._method.hardness * 100**-spent
        i, j = self._student_of, self._teacher_of
        hard = (self._entropy * _relative(entropies(student_logits))).sqrt()
        return -torch.expm1(-rate * self._alike * hard[i] / self._entropy[j])

    def _asked(self, keep: Tensor, probability: Tensor, randomness: Randomness) -> Tensor:
        """[N, C + 2] for `pair_kl`."""
        method = self._method
        if method.mode == "vanilla":
            return self._targets.over(keep)
        if method.mode == "weight":
            return weighed(self._targets, keep, self._alike * probability)
        beta = np.random.default_rng(randomness.key("beta")).beta(method.beta, method.beta, keep.numel())
        return mixed(self._targets, keep, probability * torch.from_numpy(beta).to(probability))


def _smoothed(logits: Tensor, by: float) -> Tensor:
    """Logits [N, C] of ``softmax(logits) + by``, scaled to sum 1. Mixing commutes with it, so it comes first."""
    return (logits.softmax(dim=1) + by).log() if by else logits


def _relative(entropy: Tensor) -> Tensor:
    """[N] over the largest, never 0: it divides."""
    return (entropy / entropy.max().clamp_min(1e-8)).clamp_min(1e-8)


def cosines(p: Tensor, i: Tensor, j: Tensor, *, at_once: int = EDGES_AT_ONCE) -> Tensor:
    """[E] cosine of the rows ``p[i]`` and ``p[j]`` of ``p: [N, C]``, `at_once` edges at a time."""
    unit = F.normalize(p, dim=1)
    starts = range(0, i.numel(), at_once)
    parts = [(unit[i[start : start + at_once]] * unit[j[start : start + at_once]]).sum(dim=1) for start in starts]
    return torch.cat([unit.new_empty(0), *parts])


def weighed(targets: PairTargets, keep: Tensor, weight: Tensor) -> Tensor:
    """[N, C + 2] for `pair_kl`: the kept pairs of a node by `weight` ([E]; self pairs 1), scaled to mean 1 over them.

    Args:
        keep: [E], 1 for pairs that are there, else 0.
    """
    edges = targets.edges
    both = spmm(edges, torch.ones_like(targets.own[:, :1]), keep * weight) + 1
    scale = (spmm(edges, torch.ones_like(both), keep) + 1) / both  # [N, 1]
    return scale * targets.over(keep * weight)


def mixed(targets: PairTargets, keep: Tensor, share: Tensor, *, at_once: int = EDGES_AT_ONCE) -> Tensor:
    """[N, C + 2] for `pair_kl`, with the target ``(1 - w) p_i + w p_j`` on the kept edge j -> i of `share` w ([E]).

    Args:
        keep: [E], 1 for pairs that are there, else 0.
        at_once: edges held at a time.
    """
    edges, p = targets.edges, targets.own[:, :-2]
    negentropy = p.new_zeros(edges.num_edges)
    for start in range(0, edges.num_edges, at_once):
        part = slice(start, start + at_once)
        w = share[part, None]
        target = torch.lerp(p[edges.row[part].long()], p[edges.index[part].long()], w)
        negentropy[part] = torch.special.xlogy(target, target).sum(dim=1)
    one = torch.ones_like(p[:, :1])
    counted = [spmm(edges, one, keep * value) for value in (1 - share, negentropy, torch.ones_like(share))]
    sums = torch.cat([p * counted[0] + spmm(edges, p, keep * share), *counted[1:]], dim=1)
    return targets.own + sums
