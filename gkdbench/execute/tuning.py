"""The tuned tier: equal trials for every method of a table, scored on validation, on seeds that nothing reports."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell, Group
from gkdbench.records.selection import best_of
from gkdbench.records.store import Store

SearchSpace = Mapping[str, Sequence[Any]]
"""Hyper-parameter -> values to try; ``model.dropout`` is a backbone's."""


def trial_settings(space: SearchSpace, trials: int) -> list[dict[str, Any]]:
    """Overrides of every trial: first none (the published values), then distinct random points of `space`.

    Drawn from the space alone: every method with this space gets the same points.

    Raises:
        UserError: the space has fewer points than trials.
    """
    names = sorted(space)
    points = list(itertools.product(*(space[name] for name in names)))
    if len(points) < trials - 1:
        raise UserError(
            f"search: expected {trials - 1} or more points in addition to the published values, got {len(points)}"
        )
    chosen = random.Random(repr((names, points))).sample(points, trials - 1)
    return [{}, *(_nested(dict(zip(names, point, strict=True))) for point in chosen)]


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"model.dropout": 0.5}`` -> ``{"model": {"dropout": 0.5}}``."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        table, _, field = name.rpartition(".")
        (found.setdefault(table, {}) if table else found)[field] = value
    return found


def tuned(space: SearchSpace, trials: int, seeds: Sequence[int]) -> dict[str, Any]:
    """What the key and the record of a tuned group say of how its settings were found."""
    return {"space": {name: list(values) for name, values in space.items()}, "trials": trials, "seeds": list(seeds)}


def best_trial(trials: Sequence[Sequence[Cell]], store: Store) -> Group | None:
    """The group with the highest mean validation score over its cells, of equals the one with the smallest mean
    validation loss, of equals the first; None while one is open.

    A run that failed counts as a score of 0 with an infinite loss: settings that break are not chosen. Of several peers
    their mean counts.
    """
    results: list[tuple[float, float]] = []
    for cells in trials:
        rows = [store.row(cell.address) for cell in cells]
        runs = []
        for row in rows:
            if row is None:
                return None
            peers = [model for model in row.models if model.name != "ensemble"]
            score = fmean(model.val for model in peers) if peers else 0.0
            losses = [math.inf if model.val_loss is None else model.val_loss for model in peers] or [math.inf]
            runs.append((score, fmean(losses)))
        results.append((fmean(score for score, _ in runs), fmean(loss for _, loss in runs)))
    return trials[best_of(results)][0].group
