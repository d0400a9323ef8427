"""The shared training loop: epochs, early stopping, train mode. A method writes one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context
from gkdbench.training.schedules import AfterEpoch

EpochStep = Callable[[int], Mapping[str, float]]
"""One epoch of training; takes the epoch (from 1), returns the values of its loss terms, "loss" among them."""


def train(
    ctx: Context,
    predictors: Mapping[str, Predictor],
    step: EpochStep,
    *,
    epochs: int,
    every: int = 1,
    losses: Mapping[str, str] | None = None,
    after: AfterEpoch | None = None,
) -> None:
    """Run `step` up to `epochs` times, reporting after each, until the Monitor stops it.

    Args:
        every: epochs between reports; the last epoch is reported too.
        losses: predictor -> the term that is its training loss, for the rule of LSP's and Alignahead's releases: a
            state is stored when validation improves, or when this loss is below that of the stored state.
        after: called after every report, to change a learning rate.

    Example:
        >>> from functools import partial
        >>> from gkdbench.testing import small_run
        >>> from gkdbench.training import adam, as_predictor, backbone_config, build, descend, supervised
        >>> view, ctx = small_run()
        >>> config = backbone_config("mlp", {"hidden": 8})
        >>> model = build(config, view, seed=ctx.seed)
        >>> optimiser, student = adam(model, lr=0.01, weight_decay=0.0), as_predictor(config, model, view.num_classes)
        >>> def step(epoch):
        ...     loss = lambda: supervised(student(view.inputs, view.train), view.labels)
        ...     return {"loss": descend(model, optimiser, loss)}
        >>> train(ctx, {"model": student}, step, epochs=3)
        >>> ctx.monitor.epochs, model.randomness.step
        (3, 3)
    """
    stored = dict.fromkeys(predictors, math.inf)
    for epoch in range(1, epochs + 1):
        for predictor in predictors.values():
            predictor.module.train()
        terms = step(epoch)
        if epoch % every and epoch < epochs:
            continue
        if losses is None:
            verdict = ctx.monitor.report(epoch, predictors, terms=terms)
        else:
            now = {name: terms[losses[name]] for name in predictors}
            falling = [name for name in predictors if now[name] < stored[name]]
            verdict = ctx.monitor.report(epoch, predictors, terms=terms, store=falling)
            stored |= {name: now[name] for name, replaced in verdict.improved.items() if replaced}
        if after is not None:
            after(epoch, verdict)
        if verdict.stop:
            return
