"""Readings over epochs, from side-cars: what `lines` draws of a page's `CurveFigure`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.records.key import reported
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays, row_arrays
from gkdbench.report.claimfile import CurveFigure, Side
from gkdbench.report.convergence import epochs_of
from gkdbench.report.lines import Panel, PlotCurve

CurveRun = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs and values of one run."""


def learning_curves(
    figure: CurveFigure,
    sides: Mapping[str, Side],
    records: Sequence[Record],
    side_car: Callable[[Record], SidecarArrays],
) -> tuple[list[Panel], list[int]]:
    """The panels of `figure`, and the numbers of runs that they are means of; a reading that not every run of a row
    has is left out of that row.
    """
    by_key = {record.key: record for record in records}
    found: dict[tuple[str, str], PlotCurve] = {}
    counts = set()
    for side in (sides[name] for name in figure.rows):
        entry = side.find(records, figure.dataset, figure.split, figure.setting)
        if entry is None:
            continue
        record = by_key[entry.key]
        rows = [row for row in record.rows if reported(row.seed) and row.status == "ok"]
        arrays = side_car(record)
        runs = [row_arrays(arrays, row.index, row.seed) for row in rows]
        for name, called in figure.readings.items():
            of_runs = [run for run in (_run(one, name) for one in runs) if run is not None]
            if of_runs and len(of_runs) == len(runs):
                label = called if figure.per == "row" else side.name
                found[side.name, called] = _mean(label, of_runs)
                counts.add(len(runs))
    at = 0 if figure.per == "row" else 1
    titles = dict.fromkeys(key[at] for key in found)
    return [Panel(t, tuple(c for key, c in found.items() if key[at] == t)) for t in titles], sorted(counts)


def _run(arrays: SidecarArrays, name: str) -> CurveRun | None:
    """A reading of one run; with a ``*``, the mean of all that fit. None where there is none.

    Raises:
        UserError: it does not have one value per report.
    """
    fitting = [array for known, array in sorted(arrays.items()) if fnmatchcase(known, name)]
    if not fitting:
        return None
    epochs = epochs_of(arrays)
    if any(array.shape != epochs.shape for array in fitting):
        shapes = ", ".join(str(array.shape) for array in fitting)
        raise UserError(f"scalar {name!r}: expected one value for each of {len(epochs)} reports, got shapes {shapes}")
    return epochs, np.mean([np.asarray(array, dtype=np.float64) for array in fitting], axis=0)


def _mean(label: str, runs: Sequence[CurveRun]) -> PlotCurve:
    """Mean over runs and one standard deviation (ddof=1) to each side, up to the last report that all runs have.

    Raises:
        UserError: runs that were reported at different epochs.
    """
    length = min(len(epochs) for epochs, _ in runs)
    epochs = runs[0][0][:length]
    if any(not np.array_equal(other[:length], epochs) for other, _ in runs):
        raise UserError(f"runs of {label!r} were evaluated at different epochs; their mean is undefined")
    values = np.stack([value[:length] for _, value in runs])
    mean = values.mean(0)
    spread = values.std(0, ddof=1) if len(runs) > 1 else np.zeros_like(mean)
    low, high = mean - spread, mean + spread
    return PlotCurve(label, *(tuple(each.tolist()) for each in (epochs, mean, low, high)))
