"""GSP: a student whose pairs of nodes are as alike as its teacher's, all pairs and not the edges alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor, nn

from gkdbench.methods.structure._feature_student import FeatureTaught, FeatureTerm, sampled
from gkdbench.nn.random import Randomness
from gkdbench.training.blocks.projections import Projection
from gkdbench.training.types import NonNegativeFloat, PositiveInt

PairKernel = Literal["cosine", "poly", "l2", "rbf"]


@dataclass(frozen=True, kw_only=True)
class GSP(FeatureTaught):
    """``CE + beta * mean over pairs (i, j) of (K(h_S)_ij - K(h_T)_ij)^2`` (Joshi et al. 2022, eq. 4).

    By default the student's features are projected and the teacher's are as they are. ``as_released`` projects and
    trains both sides, so that the target moves, and compares the labelled nodes.

    Args:
        kernel: "cosine"; "poly", its square; "l2", the distance; "rbf", exp(-distance^2 / 2).
        projection: width that features are projected to.
        max_samples: nodes compared in a step, as many as memory for their pairs allows.
    """

    name: ClassVar[str] = "gsp"
    paper: ClassVar[str] = (
        "Joshi, Liu, Xun, Lin, Foo, On Representation Knowledge Distillation for Graph Neural Networks (GSP)"
    )
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2111.04964"
    repository: ClassVar[str] = "chaitjo/efficient-gnns"
    licence: ClassVar[str] = "none stated"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the teacher's features are not projected; in the official code by a trained layer, so that the target moves",
        "projections are left out of weight decay; in the official code they are not",
        "all observed items are compared by default; the official code compares the labelled ones",
        "the number of pairs is capped by memory, and reported",
        "the additional KD is a mean over items; the official code's is divided by the number of classes too",
    )

    beta: NonNegativeFloat = 100.0
    kernel: PairKernel = "cosine"
    projection: PositiveInt = 128
    max_samples: PositiveInt = 4096

    def term(self, student: int, teacher: int, randomness: Randomness) -> FeatureTerm:
        return PairwiseSimilarityTerm(self, student, teacher, randomness)


class PairwiseSimilarityTerm(FeatureTerm):
    """`GSP`'s term, with its projections."""

    def __init__(self, method: GSP, student: int, teacher: int, randomness: Randomness) -> None:
        super().__init__()
        self._kernel, self._most, self._randomness = method.kernel, method.max_samples, randomness
        out = method.projection
        self.student = Projection(student, out, name="pairs.student", randomness=randomness)
        self.teacher: nn.Module = nn.Identity()
        if method.as_released:
            self.teacher = Projection(teacher, out, name="pairs.teacher", randomness=randomness)

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, graph: CSRGraph | None) -> Tensor:
        rows = sampled(rows, self._most, 6, self._randomness)  # either side's kernel, their difference, the gradients
        self.noted["pairs"] = float(rows.numel() ** 2)
        own, target = (
            alike(side(h[rows]), self._kernel) for side, h in ((self.student, student), (self.teacher, teacher))
        )
        return F.mse_loss(own, target)


def alike(h: Tensor, kernel: PairKernel) -> Tensor:
    """[R, R] kernel of all pairs of rows of ``h: [R, D]``."""
    if kernel in ("cosine", "poly"):
        unit = F.normalize(h, dim=1)
        cosine = unit @ unit.T
        return cosine if kernel == "cosine" else cosine.square()
    norm = h.square().sum(1)
    square = (norm[:, None] + norm - 2 * h @ h.T).clamp_min(0)
    if kernel == "rbf":
        return (-0.5 * square).exp()
    apart = square > 0  # the square root has no slope at 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
