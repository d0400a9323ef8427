"""What a student is compared with: logits, probabilities or log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Logits:
    """A target given by its logits [N, C]; its temperature is that of the student."""

    value: Tensor


@dataclass(frozen=True, slots=True)
class Probs:
    """A target given by its probabilities [N, C], at the temperature they were made with."""

    value: Tensor


@dataclass(frozen=True, slots=True)
class LogProbs:
    """A target given by its log-probabilities [N, C], -inf allowed, at the temperature they were made with."""

    value: Tensor


Target = Logits | Probs | LogProbs
