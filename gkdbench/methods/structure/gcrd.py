"""G-CRD: a student whose features find their own node among the teacher's features of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor

from gkdbench.methods.structure._feature_student import FeatureTaught, FeatureTerm, sampled
from gkdbench.nn.random import Randomness
from gkdbench.training.blocks.projections import Projection
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class GCRD(FeatureTaught):
    """``CE + beta * mean_i CE(<s_i, t_j> / tau over j, i)`` of unit projections s, t (Joshi et al. 2022, eq. 6).

    The positive of node i is the teacher's node i, its negatives are the other sampled nodes. Both projections are
    trained: that is the method. ``as_released`` decays them, and compares the labelled nodes.

    Args:
        tau: temperature.
        projector: "nce", ``ReLU(BatchNorm(W h))``; "gcd", the same over the graph (not for graph tasks).
        projection: width of s and t.
        max_samples: nodes compared in a step, as many as memory for their pairs allows.
    """

    name: ClassVar[str] = "gcrd"
    paper: ClassVar[str] = (
        "Joshi, Liu, Xun, Lin, Foo, On Representation Knowledge Distillation for Graph Neural Networks (G-CRD)"
    )
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2111.04964"
    repository: ClassVar[str] = "chaitjo/efficient-gnns"
    licence: ClassVar[str] = "none stated"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the additional KD is a mean over items; the official code's is divided by the number of classes too",
        "projections are left out of weight decay; in the official code they are not",
        "all observed items are compared by default; the official code compares the labelled ones",
        "the number of compared nodes is capped by memory, and reported",
        "graph tasks compare graphs as means over nodes; the official code for molecules was never published",
    )

    beta: NonNegativeFloat = 0.1
    tau: PositiveFloat = 0.075
    projector: Literal["nce", "gcd"] = "nce"
    projection: PositiveInt = 256
    max_samples: PositiveInt = 16384

    def term(self, student: int, teacher: int, randomness: Randomness) -> FeatureTerm:
        return Contrast(self, student, teacher, randomness)


class Contrast(FeatureTerm):
    """`GCRD`'s term, with its two projections."""

    def __init__(self, method: GCRD, student: int, teacher: int, randomness: Randomness) -> None:
        super().__init__()
        self._tau, self._most, self._randomness = method.tau, method.max_samples, randomness
        self.student, self.teacher = (
            Projection(
                width,
                method.projection,
                name=f"contrast.{side}",
                randomness=randomness,
                over_graph=method.projector == "gcd",
            )
            for side, width in (("student", student), ("teacher", teacher))
        )

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, graph: CSRGraph | None) -> Tensor:
        rows = sampled(rows, self._most, 4, self._randomness)  # products, their softmax, and the gradients of both
        self.noted["compared"] = float(rows.numel())
        s, t = (
            F.normalize(side(h, graph)[rows], dim=1) for side, h in ((self.student, student), (self.teacher, teacher))
        )
        return F.cross_entropy(s @ t.T / self._tau, torch.arange(rows.numel(), device=rows.device))
