"""The plain formula of `soft_kl`: one KL per row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype


def log_probabilities(value: Tensor, kind: str, tau: float, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities and probabilities [S, N, C] of a target; S = 2 with several labels: there, and not.

    A logarithm of 0 is taken at the dtype's smallest normal number, so that ``p log p`` is 0 and gradients are finite.
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


def soft_kl_reference(student: Tensor, value: Tensor, kind: str, tau: float, multi_label: bool) -> Tensor:
    """[N] the formula."""
    wide = accumulation_dtype(student.dtype)
    log_q, _ = log_probabilities(student.to(wide), "Logits", tau, multi_label)
    log_p, p = log_probabilities(value.to(wide), kind, tau, multi_label)
    rows = (p * (log_p - log_q)).sum((0, -1))
    return rows / max(1, student.size(1)) if multi_label else rows
