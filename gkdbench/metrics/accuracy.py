"""Accuracy: the share of items whose class is right."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from gkdbench.metrics.metric import Array, Metric, argmax, classes, matrix, probabilities, same_items


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right classes; predictions [N] int, labels [N] int64."""

    name: str = "accuracy"

    def from_logits(self, logits: ArrayLike) -> Array:
        """[N, C] float -> [N] uint8 (int32 above 256 classes), ties to the lowest class."""
        return argmax(matrix(logits, "logits"))

    def from_probs(self, probs: ArrayLike) -> Array:
        """[N, C] in [0, 1] -> [N], as `from_logits`."""
        return argmax(probabilities(probs))

    def __call__(self, predictions: ArrayLike, labels: ArrayLike) -> float:
        """[N] int, [N] int -> [0, 1]."""
        predicted, known = classes(predictions, "predictions"), classes(labels, "labels")
        same_items(predicted, known)
        return float((predicted == known).mean())
