"""Scores as pure functions of stored predictions: numpy in, one float out.

    from gkdbench.metrics import score
    score("accuracy", predictions, labels)

The scorer, the verifier and the report all call `score`; what a model must hand over for it (classes, decisions
or scores) is made by `Metric.from_logits` or `Metric.from_probs`, never guessed from the values (protocol.md, trap 7).
"""

from gkdbench.metrics.registry import METRICS, score

__all__ = ["METRICS", "score"]
