"""What a metric is: how predictions are made from a model's output, and how they are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gkdbench.errors import UserError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Metric(ABC):
    """One way to score predictions.

    Args:
        name: registered name, as in ``Task.metric``.
        higher_is_better: direction of improvement.
        ranks: needs one score per item and task; False when decisions (arg-max, yes/no) are enough.
        unit: of the printed value; scores lie in [0, 1] and are printed in percent.
    """

    name: str
    higher_is_better: bool = True
    ranks: bool = False
    unit: str = "%"

    @abstractmethod
    def from_logits(self, logits: ArrayLike) -> Array:
        """The predictions that `__call__` scores, from unbounded model outputs ([N, C] or [N, L] float)."""

    @abstractmethod
    def from_probs(self, probs: ArrayLike) -> Array:
        """The same predictions from probabilities in [0, 1]; values outside are refused."""

    @abstractmethod
    def __call__(self, predictions: ArrayLike, labels: ArrayLike) -> float:
        """The score in [0, 1] of `predictions` against `labels`; both cover exactly the scored items."""


def matrix(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """`values` as [N, C] float64, refused when not two-dimensional or not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise UserError(f"{what}: expected two dimensions, [items, classes or tasks], got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UserError(
            f"{what}: expected finite values, got NaN or infinity; a diverged model has no score, record it as status "
            "'nan'"
        )
    return array


def probabilities(values: ArrayLike) -> NDArray[np.float64]:
    """`values` as [N, C] float64 in [0, 1]; logits handed over as probabilities are refused."""
    array = matrix(values, "probabilities")
    if array.size and (array.min() < 0.0 or array.max() > 1.0):
        raise UserError(
            f"probabilities: expected values in [0, 1], got {array.min():.3g}..{array.max():.3g}; these look like "
            f"logits: use from_logits"
        )
    return array


def classes(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """`values` as [N] int64 classes; -1 (unknown), fractions and other shapes are refused."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise UserError(f"{what}: expected one class per item, [N], got shape {array.shape}")
    if array.size == 0:
        raise UserError(f"{what}: expected at least one item, got none; there is nothing to score")
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{what}: expected integer classes, got {array.dtype}; use from_logits or from_probs")
    if array.min() < 0:
        raise UserError(
            f"{what}: expected classes of 0 or more, got {int(array.min())} (unknown); score only items whose label "
            "is known"
        )
    return array.astype(np.int64)


def argmax(scores: NDArray[np.float64]) -> Array:
    """[N, C] -> [N]: the best class, ties to the lowest; uint8 up to 256 classes, else int32."""
    best: Array = scores.argmax(axis=1).astype(np.uint8 if scores.shape[1] <= 256 else np.int32)
    return best


def same_items(predictions: Array, labels: Array) -> None:
    """Refuse predictions and labels of different shape."""
    if predictions.shape != labels.shape:
        raise UserError(
            f"predictions and labels: expected the same items, got shapes {predictions.shape} and {labels.shape}"
        )
