"""Known labels as columns of probabilities that are propagated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def label_columns(labels: Tensor, at: Tensor, nodes: int, classes: int) -> tuple[Tensor, Tensor, float]:
    """(values [nodes, K], [nodes, K] bool where they are known, what stands where they are not).

    K is C, one-hot for a class; with several labels 2 C: that each label is there, then that it is not.

    Args:
        labels: [M] classes, or [M, C] of 0, 1 and NaN; of the nodes `at` ([M] int64).
    """
    several = labels.dim() == 2
    columns = 2 * classes if several else classes
    even = 1 / 2 if several else 1 / columns
    values, known = torch.full((nodes, columns), even), torch.zeros(nodes, columns, dtype=torch.bool)
    given = torch.cat([labels, 1 - labels], dim=1) if several else F.one_hot(labels, columns).float()
    values[at], known[at] = given.nan_to_num(even), ~given.isnan()
    return values, known, even
