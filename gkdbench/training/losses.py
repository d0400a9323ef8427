"""The losses that methods share. Each distillation loss names what its arguments are: logits, never "scores"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised(logits: Tensor, labels: Tensor, *, multi_label: bool = False, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, mean over items; for several labels per item binary cross-entropy, mean over known entries.

    A batch without any label (no items, no known entry) has loss 0, and gradient 0.

    Args:
        logits: [M, C].
        labels: [M] int64, or [M, C] float32 with NaN where unknown.
        smoothing: label smoothing s in [0, 1): targets ``(1 - s) y + s / C``; of several labels ``(1 - s) y + s / 2``.

    Example:
        >>> supervised(torch.zeros(2, 4), torch.tensor([0, 3]))  # log 4
        tensor(1.3863)
        >>> nan = float("nan")
        >>> supervised(torch.zeros(2, 2), torch.tensor([[1.0, nan], [nan, nan]]), multi_label=True)  # log 2
        tensor(0.6931)
    """
    if not multi_label:
        if not labels.numel():
            return logits.sum() * 0.0
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    known = ~torch.isnan(labels)
    if not known.any():
        return logits.sum() * 0.0
    targets = labels[known]
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits[known], targets)


def log_probabilities(logits: Tensor, *, multi_label: bool = False) -> Tensor:
    """[M, C] log softmax; for several labels an item [M, 2 C]: that each label is there, then that it is not.

    Example:
        >>> log_probabilities(torch.zeros(1, 2)).exp(), log_probabilities(torch.zeros(1, 1), multi_label=True).exp()
        (tensor([[0.5000, 0.5000]]), tensor([[0.5000, 0.5000]]))
    """
    if multi_label:
        return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
    return F.log_softmax(logits, dim=1)


def row_kl(student_logits: Tensor, teacher_logits: Tensor, *, tau: float = 1.0, multi_label: bool = False) -> Tensor:
    """[M] ``KL(softmax(z_T / tau) || softmax(z_S / tau))`` of every row, the teacher detached; both logits [M, C].

    With several labels per item, the mean over labels of the Bernoulli KL.
    """
    log_p = log_probabilities(teacher_logits.detach() / tau, multi_label=multi_label)
    log_q = log_probabilities(student_logits / tau, multi_label=multi_label)
    total = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return total / student_logits.size(1) if multi_label else total


def kl_to_teacher(
    student_logits: Tensor, teacher_logits: Tensor, *, tau: float = 1.0, multi_label: bool = False
) -> Tensor:
    """``mean over rows of KL(softmax(z_T / tau) || softmax(z_S / tau))``, the teacher detached (Hinton et al. 2015).

    No factor tau^2: multiply by it where it is needed. With several labels per item, the mean over labels of the
    Bernoulli KL.

    Args:
        student_logits, teacher_logits: [M, C].

    Example:
        >>> student, teacher = torch.zeros(1, 2, requires_grad=True), torch.tensor([[2.0, 0.0]], requires_grad=True)
        >>> loss = kl_to_teacher(student, teacher, tau=2.0)
        >>> round(loss.item(), 4)
        0.1109
        >>> loss.backward()
        >>> student.grad, teacher.grad
        (tensor([[-0.1155,  0.1155]]), None)
    """
    return kl_of_logits(student_logits, teacher_logits.detach(), tau=tau, multi_label=multi_label)


def kl_of_logits(
    student_logits: Tensor, teacher_logits: Tensor, *, tau: float = 1.0, multi_label: bool = False
) -> Tensor:
    """As `kl_to_teacher`, with gradient into the teacher too: for targets that are learned."""
    student, teacher = student_logits / tau, teacher_logits / tau
    if multi_label:
        p = teacher.sigmoid()
        per_label = p * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p) * (
            F.logsigmoid(-teacher) - F.logsigmoid(-student)
        )
        return per_label.mean()
    log_p = F.log_softmax(teacher, dim=1)
    return F.kl_div(F.log_softmax(student, dim=1), log_p, reduction="batchmean", log_target=True)


def hinton(
    student_logits: Tensor, teacher_logits: Tensor, *, tau: float, multi_label: bool = False, per_class: int = 1
) -> Tensor:
    """``tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau))``, or BCE against ``sigmoid(z_T / tau)`` for several labels.

    Args:
        student_logits, teacher_logits: [M, C].
        per_class: what the KL is divided by in addition to M; the official code of Joshi et al. (2022) divides it by C
            too.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(student_logits / tau, (teacher_logits.detach() / tau).sigmoid())
    return tau**2 / per_class * kl_to_teacher(student_logits, teacher_logits, tau=tau)


def entropy(logits: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean over rows of the entropy of ``softmax(logits)``, in nats; ``logits: [M, C]``.

    Args:
        known: [M, C] bool: for several labels an item, the mean of the Bernoulli entropies of these entries instead
            (without any, 0).
    """
    if known is not None:
        z = logits[known]
        p = z.sigmoid()
        return -(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z)).sum() / max(z.numel(), 1)
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()
