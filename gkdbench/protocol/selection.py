"""Which epoch of a run is kept (docs/protocol.md, section 4.1)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gkdbench.records.selection import PROTOCOL_RULE, SelectionRule, best_of

__all__ = ["PROTOCOL_RULE", "BestEpoch", "SelectionRule", "best_of", "cross_entropy_ratio", "validation_loss"]


@dataclass
class BestEpoch:
    """The best epoch of one predictor so far.

    Args:
        score, loss: of that epoch (means, where the rule has a window).
        epoch: 0 before the first one that may be selected.
        value: the epoch's own validation score.
    """

    rule: SelectionRule
    score: float = -math.inf
    loss: float = math.inf
    epoch: int = 0
    value: float = -math.inf
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def offer(self, epoch: int, score: float, loss: float, *, store: bool = False) -> bool:
        """Whether this epoch, which may be selected, is kept in the place of the best one so far.

        Args:
            store: keep it whatever its score.
        """
        value = score
        if self.rule.window > 1:
            self._recent.append((score, loss))
            if len(self._recent) > self.rule.window:
                self._recent.popleft()
            elif len(self._recent) < self.rule.window and not store:
                return False
            score, loss = (fmean(values) for values in zip(*self._recent, strict=True))
        if not (store or self._better(score, loss)):
            return False
        self.score, self.loss, self.epoch, self.value = score, loss, epoch, value
        return True

    def _better(self, score: float, loss: float) -> bool:
        if score != self.score:
            return score > self.score
        if self.rule.ties == "loss":
            return loss <= self.loss
        return self.rule.ties == "later"


def validation_loss(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats, rounded to float32, so that what is stored orders epochs as what was compared.

    Args:
        logits: [M, C] float32.
        labels: [M] int64 classes, or [M, L] float32 of 0, 1 and NaN: binary cross-entropy over the known labels.
    """
    logits = logits.double()
    if not labels.is_floating_point():
        return float(np.float32(F.cross_entropy(logits, labels).item()))
    known = ~torch.isnan(labels)
    return float(np.float32(F.binary_cross_entropy_with_logits(logits[known], labels[known].double()).item()))


def cross_entropy_ratio(logits: Tensor, labels: Tensor) -> float:
    """Cross-entropy over that of a model that gives every class the same probability: about 1, nothing was learned.

    Args:
        logits, labels: as of `validation_loss`, on the training items.
    """
    classes = 2 if labels.is_floating_point() else logits.size(1)
    return validation_loss(logits, labels) / math.log(max(classes, 2))
