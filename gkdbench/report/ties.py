"""The first against the later of equal validation scores, in records of protocol 1: what their stored curves tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from gkdbench.records.schema import ModelResult, Record
from gkdbench.records.sidecar import SidecarArrays, row_arrays
from gkdbench.report.cells import points
from gkdbench.report.entries import taught_by
from gkdbench.report.markdown import plain, table

NAME = "ties"
"""Of the marks in the page, ``<!-- table ties -->`` and ``<!-- end ties -->``."""
TITLES = (
    "Models", "Moved", "Epochs moved, median", "Maximum", "Validation score, mean", "Test score, mean",
    "Test score, range",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TieShift:
    """What keeping the later of equal scores changes for one model of one run.

    Args:
        epochs: by how many the selected epoch moves; 0: its score is not reached again.
        test: change of the test score, in [-1, 1]; None where no test curve is stored.
    """

    epochs: int
    test: float | None


def shifts(record: Record, arrays: SidecarArrays) -> Iterator[TieShift]:
    """One for every model of `record` that has a validation curve of two epochs or more.

    Args:
        arrays: of the record's side-car.
    """
    for row in record.rows:
        own = row_arrays(arrays, row.index, row.seed) if row.status == "ok" else {}
        for model in row.models:
            curve, epochs = own.get(f"{model.name}/val/curve"), own.get(f"{model.name}/epochs")
            if curve is not None and epochs is not None and 1 < len(curve) == len(epochs):
                yield _shift(record, own, model)


def _shift(record: Record, arrays: SidecarArrays, model: ModelResult) -> TieShift:
    curve, epochs = arrays[f"{model.name}/val/curve"], arrays[f"{model.name}/epochs"]
    first = int(np.flatnonzero(epochs == model.selected_epoch)[0])
    later = int(np.flatnonzero(curve == curve[first])[-1])
    test = arrays.get(f"{model.name}/{record.setting}/curve")
    change = None if test is None else float(test[later]) - float(test[first])
    return TieShift(int(epochs[later]) - int(epochs[first]), change)


def ties_section(records: Sequence[Record], curves: Callable[[Record], SidecarArrays]) -> str:
    """Two tables: by data set and split, and by method and teacher in them.

    Counted are records of protocol 1 in corrected form that were selected by the first of equal scores and have a
    side-car.

    Args:
        records: any; curves: reads the side-car of one.
    """
    found: dict[tuple[str, ...], list[TieShift]] = {}
    counted = [
        r
        for r in records
        if (r.protocol_version, r.variant, r.selection) == (1, "corrected", "first")
        and r.predictions is not None
        and r.predictions.kept
    ]
    for record in sorted(counted, key=lambda r: (r.dataset, r.split, r.method, r.label, r.key)):
        name = record.label if record.method == "teacher" else record.method
        row = (record.dataset, record.split, name, taught_by(record))
        found.setdefault(row, []).extend(shifts(record, curves(record)))
    places: dict[tuple[str, ...], list[TieShift]] = {}
    for key, of in found.items():
        places.setdefault(key[:2], []).extend(of)
    every = [shift for of in found.values() for shift in of]
    totals = {**places, ("all", ""): every}
    parts = [
        f"{len(counted)} records, {len(every)} models, {sum(shift.epochs > 0 for shift in every)} of them moved.",
        _table(("Data set", "Split"), totals),
        "By method, and whom it was taught by:",
        _table(("Data set", "Split", "Method", "Taught by"), found),
    ]
    return "\n\n".join(parts)


def _table(titles: Sequence[str], found: Mapping[tuple[str, ...], Sequence[TieShift]]) -> str:
    rows = [[*(plain(part) or "–" for part in key), *_cells(of)] for key, of in found.items() if of]
    return table([*titles, *TITLES], rows)


def _cells(of: Sequence[TieShift]) -> list[str]:
    moved = [shift for shift in of if shift.epochs > 0]
    counts = [str(len(of)), f"{len(moved)} ({len(moved) / len(of):.0%})"]
    if not moved:
        return [*counts, "–", "–", "–", "–", "–"]
    by = [shift.epochs for shift in moved]
    tests = [shift.test for shift in moved if shift.test is not None]
    mean, ends = (points(fmean(tests)), f"{points(min(tests))} to {points(max(tests))}") if tests else ("–", "–")
    return [*counts, f"{median(by):g}", str(max(by)), points(0.0), mean, ends]
