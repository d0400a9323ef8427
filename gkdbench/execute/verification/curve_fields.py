"""Audits, test scores and epochs of a row against the curves in its side-car."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gkdbench.execute.selected_epochs import GPU_TOLERANCE, TOLERANCE
from gkdbench.execute.verification.findings import Difference
from gkdbench.execute.verification.resolved_form import is_own
from gkdbench.protocol.scoring import DECLARED_LOOKS
from gkdbench.protocol.spikes import LOSS_SPIKE, is_spiked
from gkdbench.records.schema import ModelResult, Record, Row
from gkdbench.records.sidecar import SidecarArrays

SAVED_TOLERANCE = 0.02
"""A score of a saved state may differ so much from its curve's: on fewer items at once, sums round otherwise."""


def curve_differences(record: Record, arrays: SidecarArrays, model: ModelResult) -> Iterator[Difference]:
    """Peak, epoch of the peak, gap, final score and selected score of every column against the stored curves."""
    epochs = arrays.get(f"{model.name}/epochs")
    for column in sorted(model.audit.keys() | (model.scores.keys() if epochs is not None else set())):
        of, curve = f"models.{model.name}.audit.{column}", arrays.get(f"{model.name}/{column}/curve")
        if curve is None or epochs is None or not len(curve) or len(curve) != len(epochs):
            yield Difference(of, text=f"{model.name}: an audit of {column} without its curve")
            continue
        if column not in model.scores or column not in model.audit:
            continue  # said elsewhere
        audit, selected = model.audit[column], model.scores[column].value
        wanted = {"peak": max(float(curve.max()), selected), "final": float(curve[-1])}
        wanted["gap"] = wanted["peak"] - selected
        for what, value in wanted.items():
            stored = getattr(audit, what)
            if not math.isclose(stored, value, rel_tol=0, abs_tol=TOLERANCE):
                text = f"{model.name}: audit {what} of {column} is {stored:.6f}, its curve has {value:.6f}"
                yield Difference(f"{of}.{what}", value, stored, text)
        best = epochs[curve == curve.max()]
        exact = record.data.metric == "accuracy" and column != "prod"  # other scores may be equal in float32 alone
        if audit.epoch not in (best[:1] if exact else best):
            text = f"{model.name}: audit epoch of {column} is {audit.epoch}, its curve is best at {best[0]}"
            yield Difference(f"{of}.epoch", int(best[0]), audit.epoch, text)
        at = curve[epochs == model.selected_epoch]
        off = max(SAVED_TOLERANCE, 0.0 if record.device == "cpu" else GPU_TOLERANCE)
        if len(at) and not math.isclose(float(at[0]), selected, rel_tol=0, abs_tol=off):
            text = (
                f"{model.name}: {column} is {selected:.6f}, its curve has {at[0]:.6f} at epoch {model.selected_epoch}"
            )
            yield Difference(f"models.{model.name}.scores.{column}", float(at[0]), selected, text)


DECLARED_UNCOUNTED = ("ensemble", "cohop")
"""Methods whose declared predictors were not counted in side-cars of earlier rows."""


def look_differences(record: Record, row: Row, arrays: SidecarArrays) -> Iterator[Difference]:
    """How often validation was looked at, against the validation curves: each of their points was one look, and the
    side-car counts those at declared predictors, which have no curve."""
    curves = (arrays.get(f"{model.name}/val/curve") for model in row.models)
    points = sum(len(curve) for curve in curves if curve is not None)
    if row.looks is None:
        return
    if DECLARED_LOOKS not in arrays and record.method in DECLARED_UNCOUNTED:
        if row.looks < max(points, row.epochs):
            yield Difference("looks", f"{max(points, row.epochs)} or more", row.looks)
        return
    counted = points + int(arrays.get(DECLARED_LOOKS, np.zeros(1)).sum())
    if row.looks != counted:
        yield Difference("looks", counted, row.looks)


ROUNDED = 1e-5
"""Loss terms are stored as float32: so near to the bound of a spike, both answers are right."""


def spike_differences(record: Record, row: Row, arrays: SidecarArrays) -> Iterator[Difference]:
    """The flag of a loss spike against the stored loss; a method of another package may flag itself."""
    losses = arrays.get("terms/loss", np.zeros(0))
    flagged = LOSS_SPIKE in row.flags
    if not flagged and is_spiked(losses, times=10 * (1 + ROUNDED)):
        yield Difference("flags", f"{LOSS_SPIKE!r}", f"no {LOSS_SPIKE!r}")
    if flagged and is_own(record.method) and not is_spiked(losses, times=10 * (1 - ROUNDED)):
        yield Difference("flags", f"no {LOSS_SPIKE!r}", f"{LOSS_SPIKE!r}")


def epoch_differences(row: Row, arrays: SidecarArrays) -> Iterator[Difference]:
    """How many epochs were reported against the terms that were reported with them."""
    reported = arrays.get("terms/epoch")
    if reported is None:
        return
    if len(reported) != row.epochs:
        yield Difference("epochs", len(reported), row.epochs)
    elif np.any(np.diff(reported) <= 0):
        yield Difference("epochs", "numbers that rise", "others")
