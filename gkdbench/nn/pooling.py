"""Readout of a graph from its nodes."""

from __future__ import annotations

from typing import Literal

from gkdkernels import segment_max, segment_mean, segment_softmax, segment_sum
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.random import Randomness

Pooling = Literal["sum", "mean", "max", "attention"]
POOLINGS: tuple[Pooling, ...] = ("sum", "mean", "max", "attention")


class Readout(nn.Module):
    """[G, D] from node states [N, D] and segments [G + 1].

    Args:
        kind: "sum", "mean", "max", or "attention": the sum weighted by a softmax, within the graph, of a linear score.
        width: D.
        name: keys the initial values of the score.
        randomness: where they are drawn from.
    """

    def __init__(self, kind: Pooling, width: int, *, name: str, randomness: Randomness) -> None:
        super().__init__()
        self.kind = kind
        self.score: FeatureLinear | None = None
        if kind == "attention":
            self.score = FeatureLinear(width, 1, name=f"{name}.score", randomness=randomness, bias=False)

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """[G, D]; a graph without nodes reads 0."""
        if self.score is not None:
            return segment_sum(x * segment_softmax(self.score(x), segments), segments)
        return {"sum": segment_sum, "mean": segment_mean, "max": segment_max}[self.kind](x, segments)
