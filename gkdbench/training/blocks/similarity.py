"""Similarity distillation: the student's hidden layer learns which nodes the teacher's holds to be alike."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.parts import KeyedDropout
from gkdbench.nn.random import Randomness


def gram_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean over pairs (i, j) of (h_i.h_j - t_i.t_j)^2`` (Tian et al. 2023, eq. 6), the teacher detached.

    Args:
        student: [M, H]. teacher: [M, H'], of the same items.
    """
    teacher = teacher.detach()
    return F.mse_loss(student @ student.T, teacher @ teacher.T)


class Similarity(nn.Module):
    """``gram_mse(dropout(ReLU(W h + b)), t)``; the linear map serves training alone and is not deployed.

    Args:
        student, teacher: widths of the hidden layers compared.
        dropout: on the mapped rows.
    """

    def __init__(self, student: int, teacher: int, randomness: Randomness, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = KeyedDropout(dropout, name="similarity.dropout", randomness=randomness)
        self.linear = FeatureLinear(student, teacher, name="similarity", randomness=randomness, init="torch")

    def forward(self, hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
        """Scalar loss of ``hidden: [M, H]`` against ``teacher_hidden: [M, H']``."""
        return gram_mse(self.dropout(F.relu(self.linear(hidden))), teacher_hidden)
