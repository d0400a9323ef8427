"""How soon a validation score is reached: in epochs, in gradient steps of one model, and on the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.records.schema import Record, Row
from gkdbench.records.sidecar import SidecarArrays, row_arrays
from gkdbench.report.statistics import sign_flip_interval

Pair = tuple[int, int]
"""Split index and seed of a run."""
Spread = tuple[float, float, float]
"""A geometric mean, and the ends of its 95 % interval, by the sign-flip test of its logarithms."""
NEVER = 2
"""A level that is never reached counts as so many times the rival's epochs, and no run counts for more."""


@dataclass(frozen=True, slots=True)
class EpochsToTarget:
    """One run: epochs until the rival's best validation score, means over models of one name on both sides.

    Attributes:
        ours, theirs: epochs that each side needed. saved: share of theirs.
        reached: models of ours that reached the level. models: of how many.
    """

    ours: float
    theirs: float
    saved: float
    reached: int
    models: int


@dataclass(frozen=True, slots=True)
class Speedup:
    """Ours over theirs until the level: below 1 is sooner.

    Attributes:
        reached: models of all runs that reached it. models: of how many.
        epochs, steps, seconds: steps are those of one model; None if a record lacks it.
    """

    reached: int
    models: int
    epochs: Spread
    steps: Spread | None
    seconds: Spread | None


def arrivals(ours: SidecarArrays, theirs: SidecarArrays, pairs: Sequence[Pair]) -> list[EpochsToTarget]:
    """Per run of `pairs`, from two side-cars.

    Raises:
        UserError: a run without a validation curve of the same model on both sides.
    """
    found = []
    for index, seed in pairs:
        a, b = row_arrays(ours, index, seed), row_arrays(theirs, index, seed)
        both = sorted(name for name in a.keys() & b.keys() if name.endswith("/val/curve"))
        if not both:
            raise UserError(f"run {(index, seed)} has no validation curve of the same model on both sides")
        levels = [float(np.max(b[name])) for name in both]
        needed = [_first(a, name, level) for name, level in zip(both, levels, strict=True)]
        had = [_first(b, name, level) for name, level in zip(both, levels, strict=True)]
        ends = [min(NEVER * e, end) for e, end in zip(had, needed, strict=True)]
        found.append(
            EpochsToTarget(
                ours=fmean(ends),
                theirs=fmean(had),
                saved=fmean((e - end) / e for e, end in zip(had, ends, strict=True)),
                reached=sum(end < math.inf for end in needed),
                models=len(both),
            )
        )
    return found


def _first(arrays: SidecarArrays, name: str, level: float) -> float:
    """Epoch of the first report at which a curve is at `level` or above; infinite when there is none."""
    at = np.flatnonzero(np.asarray(arrays[name], dtype=np.float64) >= level)
    return float(epochs_of(arrays)[at[0]]) if at.size else math.inf


def epochs_of(arrays: SidecarArrays) -> NDArray[np.float64]:
    """Epoch of every report of one run."""
    if "terms/epoch" not in arrays:
        raise UserError("expected a side-car with terms/epoch, the epochs of its reports, got one without terms/epoch")
    return np.asarray(arrays["terms/epoch"], dtype=np.float64)


def pace(ours: Record, theirs: Record, found: Sequence[EpochsToTarget], pairs: Sequence[Pair]) -> Speedup:
    """The arrivals of `pairs` as ratios. An epoch's steps and seconds are a run's own, averaged over all its epochs."""
    epochs = [one.ours / one.theirs for one in found]
    mine, other = _by_pair(ours), _by_pair(theirs)
    steps = [_ratio(_steps(mine[pair]), _steps(other[pair])) for pair in pairs]
    seconds = [_ratio(_seconds(mine[pair]), _seconds(other[pair])) for pair in pairs]
    return Speedup(
        reached=sum(one.reached for one in found),
        models=sum(one.models for one in found),
        epochs=_spread(epochs),
        steps=_scaled(epochs, steps),
        seconds=_scaled(epochs, seconds),
    )


def _by_pair(record: Record) -> Mapping[Pair, Row]:
    return {(row.index, row.seed): row for row in record.rows}


def _steps(row: Row) -> float | None:
    """Gradient steps of one model in an epoch."""
    return row.extra["steps"] / row.epochs if "steps" in row.extra and row.epochs else None


def _seconds(row: Row) -> float | None:
    return row.train_s / row.epochs if row.train_s and row.epochs else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _scaled(epochs: Sequence[float], factors: Sequence[float | None]) -> Spread | None:
    known = [factor for factor in factors if factor is not None]
    if len(known) < len(factors):
        return None
    return _spread([ratio * factor for ratio, factor in zip(epochs, known, strict=True)])


def _spread(ratios: Sequence[float]) -> Spread:
    logs = [math.log(ratio) for ratio in ratios]
    low, high = sign_flip_interval(logs)
    return math.exp(fmean(logs)), math.exp(low), math.exp(high)
