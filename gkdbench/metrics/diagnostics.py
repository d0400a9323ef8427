"""What a score does not tell: which classes are confused, how sure a model is, how far two models agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gkdbench.errors import UserError
from gkdbench.metrics.metric import classes, probabilities, same_items


def confusion(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """[N] int, [N] int -> [C, C] int64 counts, true class x predicted class."""
    predicted, truth = classes(predictions, "predictions"), classes(labels, "labels")
    same_items(predicted, truth)
    highest = int(max(predicted.max(), truth.max()))
    if highest >= num_classes:
        raise UserError(f"expected classes 0 to {num_classes - 1} (num_classes={num_classes}), got class {highest}")
    flat = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Share of items that two models ([N] int each) put into the same class: a student's fidelity to its teacher."""
    one, two = classes(first, "first predictions"), classes(second, "second predictions")
    same_items(one, two)
    return float((one == two).mean())


def ece(probs: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599, eq. 3) over equal-width bins of the confidence.

    Args:
        probs: [N, C] probabilities.
        labels: [N] int.
        bins: M; bin m holds the confidences in ((m - 1) / M, m / M].
    """
    given, truth = probabilities(probs), classes(labels, "labels")
    same_items(given[:, 0], truth)
    return ece_of(given.max(axis=1), given.argmax(axis=1) == truth, bins)


def ece_of(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> float:
    """`ece` from what it reads: [N] probability of the predicted class, [N] bool whether it is the true one."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    same_items(confidence, right)
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)  # per bin: n (accuracy - mean confidence)
    return float(np.abs(gap).sum() / right.size)


def entropy(probs: ArrayLike) -> NDArray[np.float64]:
    """[N, C] probabilities -> [N] float64 entropy in nats, with 0 log 0 = 0."""
    given = probabilities(probs)
    logs = np.log(given, out=np.zeros_like(given), where=given > 0.0)
    nats: NDArray[np.float64] = 0.0 - (given * logs).sum(axis=1)  # not unary minus: no negative zero
    return nats
