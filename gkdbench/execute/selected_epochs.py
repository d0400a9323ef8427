"""Checks of what was selected against the curves in a side-car (docs/protocol.md, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from gkdbench.protocol.selection import BestEpoch, SelectionRule
from gkdbench.records.schema import ModelResult, Record
from gkdbench.records.sidecar import SidecarArrays

TOLERANCE = 1e-6
"""Curves are stored as float32."""
GPU_TOLERANCE = 1e-2
"""Kernels of GPUs may add in another order each time, so that a few answers differ."""
STORE_ON_LOSS = ("lsp", "alignahead")
"""Methods whose `as_released` form also stores a state when the training loss falls: no curve says which."""


def selection_problems(
    record: Record, arrays: SidecarArrays, model: ModelResult, live: Collection[str], *, own_method: bool
) -> Iterator[str]:
    """What the curves of one model do not confirm; an ensemble has none, and nothing to confirm.

    The validation score and loss, and the test scores of `live` columns, are those of the curves at the selected epoch;
    and the rule of selection gives that epoch.

    Args:
        arrays: of the model's row, names without the row's prefix.
        live: columns whose test items were predicted during training. Others are predicted from saved states, on fewer
            items at once, which may round otherwise.
        own_method: whether gkdbench brings the method. One of another package may have had epochs that may not be
            selected, which no record tells: then only epochs after the selected one are looked at.
    """
    if model.name == "ensemble" and "ensemble/val/curve" not in arrays:
        return
    curve = arrays.get(f"{model.name}/val/curve")
    if curve is None:
        yield f"{model.name}: no validation curve"
        return
    epochs = _epochs(record, arrays, model.name, len(curve))
    if epochs is None:
        if record.audit_every == 1:
            yield f"{model.name}: its validation curve has {len(curve)} epochs, its predictions were kept at others"
        return
    losses = arrays.get(f"{model.name}/val/loss")
    if record.protocol_version > 1 and (losses is None or model.val_loss is None or len(losses) != len(curve)):
        yield f"{model.name}: expected a validation loss, and one for every epoch of its curve, got none or fewer"
        return
    at = np.flatnonzero(epochs == model.selected_epoch)
    if len(at) != 1:
        yield f"{model.name}: its selected epoch {model.selected_epoch} is not one of its curve"
        return
    place, off = int(at[0]), TOLERANCE if record.device == "cpu" else GPU_TOLERANCE
    if not _close(curve[place], model.val, off):
        yield f"{model.name}: val is {model.val:.6f}, its curve has {curve[place]:.6f} at epoch {model.selected_epoch}"
    if losses is not None and model.val_loss is not None and not _close(losses[place], model.val_loss, off):
        has = f"{losses[place]:.6f} at epoch {model.selected_epoch}"
        yield f"{model.name}: val_loss is {model.val_loss:.6f}, its curve has {has}"
    yield from _test_problems(arrays, model, live, off)
    yield from _rule_problems(record, model, epochs, curve, losses, own_method)


def _close(curve: float, stored: float, off: float) -> bool:
    return math.isclose(curve, stored, rel_tol=off, abs_tol=off)


def _epochs(record: Record, arrays: SidecarArrays, name: str, length: int) -> NDArray[np.generic] | None:
    """Epoch of every value of a validation curve: those at which predictions were kept, where that was every one."""
    kept, reports = arrays.get(f"{name}/epochs"), arrays.get("terms/epoch")
    if kept is not None and len(kept) == length:
        return kept
    return reports if record.audit_every > 1 and reports is not None and len(reports) == length else None


def _test_problems(arrays: SidecarArrays, model: ModelResult, live: Collection[str], off: float) -> Iterator[str]:
    for column in sorted(set(live) & model.scores.keys()):
        curve, kept = arrays.get(f"{model.name}/{column}/curve"), arrays.get(f"{model.name}/epochs")
        if curve is None or kept is None or len(curve) != len(kept):
            yield f"{model.name}: no curve of {column}"
            continue
        found = curve[kept == model.selected_epoch]
        stored = model.scores[column].value
        if not len(found) or not _close(found[0], stored, off):
            has = f"{found[0]:.6f}" if len(found) else "nothing"
            yield f"{model.name}: {column} is {stored:.6f}, its curve has {has} at epoch {model.selected_epoch}"


def _rule_problems(
    record: Record,
    model: ModelResult,
    epochs: NDArray[np.generic],
    curve: NDArray[np.generic],
    losses: NDArray[np.generic] | None,
    own_method: bool,
) -> Iterator[str]:
    """Whether the rule gives the selected epoch; of a form of a release, whether one of the rules of releases does."""
    released = record.variant == "as_released"
    rules = {record.selection, "first", "later"} if released else {record.selection}
    parsed = [SelectionRule.parse(rule) for rule in sorted(rules)]
    if (released and record.method in STORE_ON_LOSS) or any(rule.window > 1 for rule in parsed):
        return  # means over a window are of exact scores, which the curve has rounded
    first = _first_selectable(record, model, own_method)
    run = [
        (int(epoch), float(score), 0.0 if losses is None else float(losses[i]))
        for i, (epoch, score) in enumerate(zip(epochs, curve, strict=True))
        if epoch >= first
    ]
    if record.data.metric == "accuracy":
        found = {_selected(rule, run) for rule in parsed}
    else:  # scores that differ may be equal in float32: any of the best epochs may be the right one
        best = max((score for epoch, score, _ in run if epoch >= min(rule.start for rule in parsed)), default=0.0)
        found = {epoch for epoch, score, _ in run if score == best}
    if model.selected_epoch not in found:
        expected = " or ".join(str(epoch) for epoch in sorted(found)[:3])
        yield f"{model.name}: epoch {model.selected_epoch} was selected, its curve gives {expected}"


def _first_selectable(record: Record, model: ModelResult, own_method: bool) -> int:
    """The first epoch that may have been selected: that of the final architecture, in methods that change theirs."""
    if not own_method:
        return model.selected_epoch
    pretrain = record.config.get("pretrain", 0)
    return pretrain + 1 if record.variant == "corrected" and isinstance(pretrain, int) else 1


def _selected(rule: SelectionRule, run: list[tuple[int, float, float]]) -> int:
    selection = BestEpoch(rule)
    for epoch, score, loss in run:
        if epoch >= rule.start:
            selection.offer(epoch, score, loss)
    return selection.epoch
