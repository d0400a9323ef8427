"""The plain formula of `mutual_kl`: pairwise KL, cross-entropy and entropy of K peers, term by term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.mutual_kl.arguments import LogitTerms, known


def mutual_kl_reference(
    terms: LogitTerms, scale: Tensor, detach_target: bool, multi_label: bool
) -> tuple[Tensor, Tensor]:
    """The formulas, pair by pair."""
    peers, weight = terms.peers, terms.weight
    log_p = [_log_probabilities(z.to(peers.wide), multi_label) for z in peers.each]  # K x [S, N, C]
    teachers = [x.detach() for x in log_p] if detach_target else log_p
    loss = [x[:, :0].sum() for x in log_p]  # 0, differentiable whatever is asked
    kl = scale.new_zeros(peers.count, peers.count)
    for j, learner in enumerate(log_p):
        for i, teacher in enumerate(teachers):
            if weight is None or i == j:
                continue
            rows = (teacher.exp() * (teacher - learner)).sum((0, -1))  # [N]
            if terms.kl_mask is not None:
                rows = rows * terms.kl_mask
            kl[i, j] = scale[0] * rows.detach().sum()
            loss[j] = loss[j] + scale[0] * (rows * (weight[i, j] if weight.dim() == 2 else weight[:, i, 0])).sum()
        if terms.targets is not None:
            loss[j] = loss[j] - scale[1] * _label_log_likelihood(learner, terms.targets)
        if terms.entropy:
            rows = -(learner.exp() * learner).sum((0, -1))
            loss[j] = loss[j] - scale[2] * (rows if terms.entropy_mask is None else rows * terms.entropy_mask).sum()
    return torch.stack(loss), kl


def _log_probabilities(z: Tensor, multi_label: bool) -> Tensor:
    """[1, N, C] of the classes, or [2, N, C] of each label being there and not."""
    return torch.stack([F.logsigmoid(z), F.logsigmoid(-z)]) if multi_label else F.log_softmax(z, dim=-1)[None]


def _label_log_likelihood(log_p: Tensor, targets: Tensor) -> Tensor:
    """The sum over known labels of their log-probability, ``log_p: [S, N, C]``."""
    there = known(targets)
    if not targets.is_floating_point():
        picked = log_p[0].gather(1, targets.long().clamp(min=0)[:, None])[:, 0]
        return picked.where(there, 0).sum()
    y = targets.to(log_p.dtype).where(there, 0)
    return (y * log_p[0] + (1 - y) * log_p[1]).where(there, 0).sum()
