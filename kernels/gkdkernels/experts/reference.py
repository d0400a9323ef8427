"""The plain formulas of `expert_linear`, expert by expert over the rows that chose it, and of the choice of experts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype

LOG_CAP = math.log(100.0)  # of the exponents of gate and temperature


def expert_linear_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    gate: Tensor | None,
    log_temperature: Tensor | None,
) -> Tensor:
    """The formula, expert by expert; ``x: [N, D]``, or [N k, D] where every pair has its own row."""
    wide = accumulation_dtype(x.dtype)
    rows = index.size(0)
    slots = x.to(wide).reshape(rows, x.size(0) // rows if rows else 1, x.size(1))  # [N, 1 or k, D]
    out = slots.new_zeros(rows, weight.size(2))
    for expert in range(weight.size(0)):
        row, slot = (index == expert).nonzero(as_tuple=True)
        inputs = slots[row, slot if slots.size(1) > 1 else 0]
        if gate is not None:
            inputs = inputs * gate[expert].to(wide).clamp(max=LOG_CAP).exp()
        y = inputs @ weight[expert].to(wide)
        if bias is not None:
            y = y + bias[expert].to(wide)
        out = out.index_add(0, row, alpha.to(wide)[row, slot, None] * y)
    if log_temperature is not None:
        out = out * log_temperature.to(wide).clamp(max=LOG_CAP).exp()
    return out.to(x.dtype)


def select_reference(scores: Tensor, k: int, first: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest of ``scores: [N, E]`` and their softmax: index [N, k] int64, largest first, ties to the lowest
    expert; alpha and score [N, k]. An expert is placed by the score of its `first`, see `routing.first_of_equals`."""
    with torch.no_grad():
        placed = scores if first is None else scores.index_select(1, first)
        index = placed.sort(dim=1, descending=True, stable=True).indices[:, :k]
    picked = scores.gather(1, index)
    return index, picked.softmax(1), picked
