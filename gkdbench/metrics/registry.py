"""Every metric by name: built-in ones are the files of this package, others come from entry points."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from gkdbench.errors import UserError
from gkdbench.metrics.metric import Metric
from gkdbench.registry import Registry, files_of


def _check(name: str, loaded: Any) -> Metric:
    """An entry is a `Metric` class whose fields all have defaults, or an instance of one."""
    metric: Any = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(metric, Metric):
        raise UserError(f"metric {name!r}: expected a gkdbench.metrics.metric.Metric, got a {type(metric).__name__}")
    if metric.name != name:
        raise UserError(f"metric {name!r}: expected its own name, got {metric.name!r}; register it under its own name")
    return metric


METRICS: Registry[Metric] = Registry("metric", "gkdbench.metrics", _check, files_of("gkdbench.metrics"))


def score(metric: str, predictions: ArrayLike, labels: ArrayLike) -> float:
    """The score in [0, 1] of stored predictions.

    Args:
        metric: registered name: ``"accuracy"``, ``"micro_f1"``, ``"rocauc"`` or a third party's.
        predictions: what ``METRICS.get(metric).from_logits`` gives: [N] integer classes for accuracy, [N, L] bool
            (or probabilities) for micro_f1, [N, T] float scores for rocauc. Rows are exactly the scored items.
        labels: [N] int64, or [N, L] float with NaN for unknown.

    Raises:
        UnknownName: no such metric.
        UserError: shapes differ, labels are unknown, or predictions are not what the metric takes.
    """
    return METRICS.get(metric)(predictions, labels)
