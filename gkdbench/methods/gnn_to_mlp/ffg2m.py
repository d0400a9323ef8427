"""FF-G2M: an MLP that learns what neighbours share and how they differ, from a GNN teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor

from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.pairs import EDGES_AT_ONCE, PairTargets, pair_kl, without_loops
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.node_pairs import PairTermsFunction, train_on_pairs
from gkdbench.training.types import PositiveFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class FFG2M(DistilledStudent):
    """``lambda * CE(V_L) + (1 - lambda) * (L_low + L_high)`` (Wu et al. 2023), full batch.

    ``L_low = mean over edges j -> i and all (i, i) of KL(p_T,j || p_S,i)``, temperature 1, and
    ``L_high = mean over edges of KL(softmax(|z_T,i - z_T,j| / tau) || softmax(|z_S,i - z_S,j| / tau))``.

    ``as_released`` lets a tie on validation win. The official code also swaps the names of two settings, the student's
    dropout being stored as the teacher's: both variants have each value where it acted.

    Args:
        label_weight: lambda. tau: temperature of L_high.
    """

    name: ClassVar[str] = "ffg2m"
    paper: ClassVar[str] = (
        "Wu, Lin, Huang, Fan, Li, Extracting Low-/High-Frequency Knowledge from GNNs and Injecting it into MLPs"
    )
    year: ClassVar[int | None] = 2023
    arxiv: ClassVar[str] = "2305.10758"
    repository: ClassVar[str] = "LirongWu/FF-G2M"
    licence: ClassVar[str] = "not checked"
    one_label: ClassVar[str] = "it compares distributions over classes that differences of logits make"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
        "dropout is named after the model it acts on; the official code stores the student's as the teacher's",
        "terms over edges are computed a part at a time, to the same value",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}

    backbone: Literal["mlp"] = "mlp"
    label_weight: UnitFloat = 0.0
    tau: PositiveFloat = 1.0

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        edges = without_loops(view.inputs.graph)
        teacher = ctx.teachers["teacher"].logits[view.inputs.everything]
        target = PairTargets(edges, teacher).over()

        def terms(logits: Tensor) -> Mapping[str, Tensor]:
            return {"low": pair_kl(logits, target), "high": difference_kl(logits, teacher, edges, tau=self.tau)}

        def begin(epoch: int, randomness: Randomness, answer: Callable[[], Tensor]) -> PairTermsFunction:
            return terms

        config, settings = self.backbone_config(), self.training_settings()
        return train_on_pairs(view, ctx, config, settings, label_weight=self.label_weight, begin=begin)

    @property
    def label(self) -> str:
        return f"FF-G2M, {self.model_label()}"


def difference_kl(
    student_logits: Tensor, teacher_logits: Tensor, edges: CSRGraph, *, tau: float, at_once: int = EDGES_AT_ONCE
) -> Tensor:
    """``mean over edges j -> i of KL(softmax(|t_i - t_j| / tau) || softmax(|s_i - s_j| / tau))``; 0 without edges.

    Args:
        student_logits, teacher_logits: s, t [N, C]; the teacher is detached.
        edges: [N x N], without self-loops.
        at_once: edges held at a time; nothing of size [E, C] is kept for the backward pass.
    """
    value: Tensor = _DifferenceKL.apply(student_logits, teacher_logits.detach(), edges, tau, at_once)  # type: ignore[no-untyped-call]
    return value


class _DifferenceKL(torch.autograd.Function):
    """`difference_kl`, with the gradient in s computed in the forward pass: for an edge with the two softmaxes p, q
    it is ``(q - p) sign(s_i - s_j) / tau`` in s_i, and its opposite in s_j."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, edges: CSRGraph, tau: float, at_once: int) -> Tensor:
        total, gradient = student.new_zeros(()), torch.zeros_like(student)
        for start in range(0, edges.num_edges, at_once):
            i, j = (ends[start : start + at_once].long() for ends in (edges.row, edges.index))
            difference = student[i] - student[j]
            log_p = F.log_softmax((teacher[i] - teacher[j]).abs() / tau, dim=1)
            log_q = F.log_softmax(difference.abs() / tau, dim=1)
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum()
            pull = (log_q.exp() - p) * difference.sign()
            gradient.index_put_((i,), pull, accumulate=True)
            gradient.index_put_((j,), -pull, accumulate=True)
        count = max(edges.num_edges, 1)
        ctx.save_for_backward(gradient.div_(tau * count))
        return total / count

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return above[0] * gradient, None, None, None, None
