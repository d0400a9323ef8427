"""FitNet: a student whose projected features point where its teacher's do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor, nn

from gkdbench.methods.structure._feature_student import FeatureTaught, FeatureTerm
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.random import Randomness
from gkdbench.training.blocks.projections import Projection
from gkdbench.training.types import NonNegativeFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class FitNet(FeatureTaught):
    """``CE + beta * MSE(l2norm(proj_S(h_S)), l2norm(proj_T(h_T)))``, a mean over nodes and columns (Joshi et al. 2022).

    By default proj_S is a linear map into the teacher's width and proj_T nothing. ``as_released`` trains both, so that
    the target may collapse, and compares the labelled nodes.

    Args:
        project: which sides are mapped; "both" by ``ReLU(BatchNorm(W h))`` to `projection` columns.
        projection: width that both sides are mapped to.
    """

    name: ClassVar[str] = "fitnet"
    paper: ClassVar[str] = (
        "Romero et al., FitNets: Hints for Thin Deep Nets; on graphs: Joshi et al., On Representation Knowledge "
        "Distillation for Graph Neural Networks"
    )
    year: ClassVar[int | None] = 2015
    arxiv: ClassVar[str] = "1412.6550"
    repository: ClassVar[str] = "chaitjo/efficient-gnns"
    licence: ClassVar[str] = "none stated"
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the student alone is projected; the official code trains a projection of the teacher too, so that the "
        "target can "
        "collapse",
        "projections are left out of weight decay; in the official code they are not",
        "all observed items are compared by default; the official code compares the labelled ones",
        "the additional KD is a mean over items; the official code's is divided by the number of classes too",
    )

    beta: NonNegativeFloat = 1000.0
    project: Literal["student_only", "both"] = "student_only"
    projection: PositiveInt = 256

    def term(self, student: int, teacher: int, randomness: Randomness) -> FeatureTerm:
        if self.as_released or self.project == "both":
            return Hint(
                Projection(student, self.projection, name="hint.student", randomness=randomness),
                Projection(teacher, self.projection, name="hint.teacher", randomness=randomness),
            )
        own = FeatureLinear(student, teacher, name="hint.student", randomness=randomness, init="torch")
        return Hint(own, nn.Identity())


class Hint(FeatureTerm):
    """`FitNet`'s term, with its two maps."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, student: Tensor, teacher: Tensor, rows: Tensor, graph: CSRGraph | None) -> Tensor:
        own, target = self.student(student[rows]), self.teacher(teacher[rows])
        return F.mse_loss(F.normalize(own, dim=1), F.normalize(target, dim=1))
