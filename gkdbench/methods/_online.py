"""What methods share whose peers learn from a mixture of their own predictions."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

RELEASED_EPSILON = 1e-7
"""Added to every target by the releases of ONE and OKDDip."""
RELEASED_RAMP = 80
"""Epochs."""


def ramp(epoch: int, length: float) -> float:
    """``exp(-5 (1 - e / length)^2)``, 1 from epoch `length` on."""
    return math.exp(-5 * (1 - min(epoch / max(length, 1), 1.0)) ** 2)


def tempered_kl(
    target: Tensor, learner: Tensor, *, tau: float, multi_label: bool = False, epsilon: float = 0.0
) -> Tensor:
    """``tau^2 mean_n KL(softmax(target / tau) || softmax(learner / tau))`` of logits [N, C].

    Gradient flows into both: whoever wants the target constant detaches it. With several labels the mean over labels
    of the Bernoulli KL, without `epsilon`.

    Args:
        epsilon: added to the target's probabilities.
    """
    target, learner = target / tau, learner / tau
    if multi_label:
        p = target.sigmoid()
        per_label = p * (F.logsigmoid(target) - F.logsigmoid(learner)) + (1 - p) * (
            F.logsigmoid(-target) - F.logsigmoid(-learner)
        )
        return tau**2 * per_label.mean()
    log_q = F.log_softmax(learner, dim=1)
    if epsilon:
        return tau**2 * F.kl_div(log_q, target.softmax(dim=1) + epsilon, reduction="batchmean")
    return tau**2 * F.kl_div(log_q, F.log_softmax(target, dim=1), reduction="batchmean", log_target=True)
