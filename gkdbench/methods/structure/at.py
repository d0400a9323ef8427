"""AT: a student that puts its features' energy on the nodes where its teacher puts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor

from gkdbench.methods.structure._feature_student import FeatureTaught, FeatureTerm
from gkdbench.nn.random import Randomness
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class AT(FeatureTaught):
    """``CE + beta * |q_S / |q_S| - q_T / |q_T||^2`` with ``q_v = sum_c h_vc^2`` over the nodes v (Joshi et al. 2022).

    No projection: q is one number a node, whatever the widths. ``as_released`` divides the squared norm by the number
    of nodes, on which it then depends twice, and compares the labelled nodes.
    """

    name: ClassVar[str] = "at"
    paper: ClassVar[str] = (
        "Zagoruyko, Komodakis, Paying More Attention to Attention; on graphs: Joshi et al., On Representation "
        "Knowledge Distillation for Graph Neural Networks"
    )
    year: ClassVar[int | None] = 2017
    arxiv: ClassVar[str] = "1612.03928"
    repository: ClassVar[str] = "chaitjo/efficient-gnns"
    licence: ClassVar[str] = "none stated"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the term is a sum over nodes of unit vectors over nodes; the official code's is a mean, so that it shrinks "
        "with "
        "their number",
        "all observed items are compared by default; the official code compares the labelled ones",
        "the additional KD is a mean over items; the official code's is divided by the number of classes too",
    )

    beta: NonNegativeFloat = 1.0

    def term(self, student: int, teacher: int, randomness: Randomness) -> FeatureTerm:
        return Attention(mean=self.as_released)


class Attention(FeatureTerm):
    """`AT`'s term; `mean` divides it by the number of rows."""

    def __init__(self, *, mean: bool) -> None:
        super().__init__()
        self._mean = mean

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, graph: CSRGraph | None) -> Tensor:
        own, target = (F.normalize(h[rows].square().sum(1), dim=0) for h in (student, teacher))
        return F.mse_loss(own, target, reduction="mean" if self._mean else "sum")
