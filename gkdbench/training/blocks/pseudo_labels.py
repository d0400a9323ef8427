"""Labels that a model's own answers give to unlabelled items: one class an item, or several labels, entry by entry."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gkdbench.protocol.predictor import mean_logits


def label_probabilities(labels: Tensor, guess: Tensor) -> Tensor:
    """[M, C] probabilities that ``labels`` are: [M] classes, or [M, C] with NaN, where `guess` ([M, C]) stands."""
    if labels.dim() == 2:
        return torch.where(labels.isnan(), guess, labels)
    return F.one_hot(labels, guess.size(1)).to(guess.dtype)


def pseudo_labels(p: Tensor, *, threshold: float, several: bool) -> tuple[Tensor, Tensor]:
    """(labels [N], or [N, C] with NaN where unsure; [N] bool, which items have one) of probabilities ``p: [N, C]``.

    Sure is what is above `threshold`: the largest entry; of several labels, entry by entry, the larger of p and 1 - p.
    """
    if not several:
        most, labels = p.max(dim=1)
        return labels, most > threshold
    sure = torch.maximum(p, 1 - p) > threshold
    return torch.where(sure, (p > 0.5).to(p.dtype), torch.nan), sure.any(dim=1)


def hits(p: Tensor, labels: Tensor) -> int:
    """How many labels (unknown ones never) the probabilities ``p: [M, C]`` meet."""
    met = (p > 0.5).to(labels.dtype) if labels.dim() == 2 else p.argmax(dim=1)
    return int((met == labels).sum())


class GuessMixture(nn.Module):
    """Predicts every observed node with ``log(w guess + (1 - w) smooth)``, the logit of it for several labels; has no
    state."""

    def __init__(self, guess: Tensor, smooth: Tensor, weight: float, *, several: bool) -> None:
        super().__init__()
        self._parts, self._weight, self._several = (guess, smooth), weight, several

    def forward(self, *_: Any) -> Tensor:
        guess, smooth = self._parts
        mixed = self._weight * guess + (1 - self._weight) * smooth
        if self._several:
            return mean_logits(mixed, multi_label=True)
        return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()
