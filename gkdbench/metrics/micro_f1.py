"""Micro-F1 of multi-label tasks: true and false decisions pooled over all items and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gkdbench.errors import UserError
from gkdbench.metrics.metric import Array, Metric, matrix, probabilities, same_items


@dataclass(frozen=True)
class MicroF1(Metric):
    """2 TP / (2 TP + FP + FN) of pooled counts; predictions [N, L] bool or probabilities, labels [N, L] of 0, 1, NaN.

    Pooling makes the score independent of batches (protocol.md, trap 30). Decisions are ``sigmoid(z) >= 0.5``, that is
    ``z >= 0``; ``z >= 0.5`` (released by LSP and Alignahead) is not offered (docs/protocol.md, trap 7).
    """

    name: str = "micro_f1"

    def from_logits(self, logits: ArrayLike) -> Array:
        """[N, L] float -> [N, L] bool: logit >= 0."""
        return matrix(logits, "logits") >= 0.0

    def from_probs(self, probs: ArrayLike) -> Array:
        """[N, L] in [0, 1] -> [N, L] bool: probability >= 0.5."""
        return probabilities(probs) >= 0.5

    def __call__(self, predictions: ArrayLike, labels: ArrayLike) -> float:
        """[N, L] bool, 0/1 or probabilities, [N, L] -> [0, 1]; unknown labels count nowhere, no positive is 0."""
        given = np.asarray(predictions)
        positive = given.astype(np.bool_) if given.dtype == np.bool_ else probabilities(given) >= 0.5
        truth = np.asarray(labels, dtype=np.float64)
        same_items(positive, truth)
        known = ~np.isnan(truth)
        if not known.any():
            raise UserError(
                "labels: expected at least one known, got none: no label is known; there is nothing to score"
            )
        if not np.isin(truth[known], (0.0, 1.0)).all():
            raise UserError("labels: expected 0, 1 or NaN (unknown), got other values")
        hit = truth == 1.0
        right = int((positive & hit).sum())
        wrong = int((positive & known & ~hit).sum()) + int((~positive & hit).sum())
        return 2 * right / (2 * right + wrong) if right else 0.0
