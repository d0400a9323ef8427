"""The plain formula of `soft_kl`: one KL per row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.impossible import settled


def log_probabilities(value: Tensor, kind: str, tau: float, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities and probabilities [S, N, C] of a target; S = 2 with several labels: there, and not.

    The logarithm of a probability of 0 is taken at the dtype's smallest normal number: gradients are finite.
    """
    least = torch.finfo(value.dtype).tiny
    if kind == "Probs":
        p = torch.stack([value, 1 - value]) if multi_label else value[None]
        return p.clamp(min=least).log(), p
    if kind == "LogProbs":
        return value.clamp(min=torch.finfo(value.dtype).min)[None], value.exp()[None]
    z = value / tau
    log_p = torch.stack([F.logsigmoid(z), F.logsigmoid(-z)]) if multi_label else F.log_softmax(z, -1)[None]
    return log_p, log_p.exp()


def soft_kl_reference(
    student: Tensor, value: Tensor, mask: Tensor | None, kind: str, tau: float, multi_label: bool
) -> Tensor:
    """[N] the formula; 0 outside `mask`, whatever those rows hold."""
    wide = accumulation_dtype(student.dtype)
    if mask is not None:  # before anything is computed: NaN times a gradient of 0 is NaN
        student, value = student.where(mask[:, None], 0), value.where(mask[:, None], 0)
    log_q, _ = log_probabilities(student.to(wide), "Logits", tau, multi_label)
    log_p, p = log_probabilities(value.to(wide), kind, tau, multi_label)
    rows = (p * settled(log_p - log_q, p)).sum((0, -1))
    if mask is not None:
        rows = rows.where(mask, 0)
    return rows / max(1, student.size(1)) if multi_label else rows
