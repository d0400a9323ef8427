"""The plain formula of `mutual_kl`: pairwise KL, cross-entropy and entropy of K peers, term by term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.impossible import settled
from gkdkernels.mutual_kl.arguments import LogitTerms, check_range, known


def mutual_kl_reference(
    terms: LogitTerms, scale: Tensor, detach_target: bool, multi_label: bool
) -> tuple[Tensor, Tensor]:
    """The formulas, pair by pair. What a mask leaves out is replaced before anything is computed of it."""
    peers, weight = terms.peers, terms.weight
    check_range(terms.targets, peers.classes)
    wide = [z.to(peers.wide) for z in peers.each]
    log_p = [_log_probabilities(_kept(z, terms.kl_mask), multi_label) for z in wide]  # K x [S, N, C]
    teachers = [x.detach() for x in log_p] if detach_target else log_p
    masked = terms.kl_mask is not None or terms.entropy_mask is not None
    if weight is not None and weight.dim() == 3:
        weight = _kept(weight[..., 0], terms.kl_mask)[..., None]
    loss = [z[:0].sum() for z in wide]  # 0, differentiable whatever is asked
    kl = scale.new_zeros(peers.count, peers.count)
    for j, learner in enumerate(log_p):
        for i, teacher in enumerate(teachers):
            if weight is None or i == j:
                continue
            p = teacher.exp()
            rows = (p * settled(teacher - learner, p)).sum((0, -1))  # [N]
            if terms.kl_mask is not None:
                rows = rows.where(terms.kl_mask, 0)
            kl[i, j] = scale[0] * rows.detach().sum()
            loss[j] = loss[j] + scale[0] * (rows * (weight[i, j] if weight.dim() == 2 else weight[:, i, 0])).sum()
        if terms.targets is not None:
            kept = _kept(wide[j], known(terms.targets))
            labelled = _log_probabilities(kept, multi_label)
            loss[j] = loss[j] - scale[1] * _label_log_likelihood(labelled, terms.targets)
        if terms.entropy:
            spread = _log_probabilities(_kept(wide[j], terms.entropy_mask), multi_label) if masked else learner
            p = spread.exp()
            rows = -(p * settled(spread, p)).sum((0, -1))
            counted = rows if terms.entropy_mask is None else rows.where(terms.entropy_mask, 0)
            loss[j] = loss[j] - scale[2] * counted.sum()
    return torch.stack(loss), kl


def _kept(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x: [N, C]``, 0 in rows (with a mask [N, C], at elements) outside `mask`."""
    if mask is None:
        return x
    return x.where(mask if mask.dim() == 2 else mask[:, None], 0)


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
