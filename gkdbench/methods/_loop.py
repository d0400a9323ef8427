"""The shared training loop: epochs, early stopping, train mode. A method writes one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context

Step = Callable[[int], Mapping[str, float]]
"""One epoch of training; takes the epoch (from 1), returns the values of its loss terms, "loss" among them."""


def train(ctx: Context, predictors: Mapping[str, Predictor], step: Step, *, epochs: int) -> None:
    """Run `step` up to `epochs` times, reporting after each, until the Monitor says stop."""
    for epoch in range(1, epochs + 1):
        for predictor in predictors.values():
            predictor.module.train()
        terms = step(epoch)
        if ctx.monitor.report(epoch, predictors, terms=terms).stop:
            return
