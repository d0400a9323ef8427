"""What methods share whose peers learn from a mixture of their own predictions."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from gkdbench.training.losses import kl_of_logits

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

    Gradient flows into both: detach the target to keep it constant. With several labels the mean over labels
    of the Bernoulli KL, without `epsilon`.

    Args:
        epsilon: added to the target's probabilities.
    """
    if epsilon and not multi_label:
        log_q = F.log_softmax(learner / tau, dim=1)
        return tau**2 * F.kl_div(log_q, (target / tau).softmax(dim=1) + epsilon, reduction="batchmean")
    return tau**2 * kl_of_logits(learner, target, tau=tau, multi_label=multi_label)
