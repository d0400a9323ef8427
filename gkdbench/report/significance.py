"""Which rows may be called better: paired against the strongest control of equal or lower cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gkdbench.report.model import ControlComparison, TableRow
from gkdbench.report.statistics import MIN_RUNS, outcome, paired

NEEDS = ("features", "features+encodings", "graph")  # in the order of what inference costs
SLACK = 1.01  # a control matched in multiply-adds may be 1% larger (docs/protocol.md, control G2)


def against_controls(entries: Sequence[TableRow], solo: Sequence[TableRow]) -> list[TableRow]:
    """`entries` with `versus`, `versus_training` and `bold` filled.

    A control is a corrected row on the same runs that was trained alone, as one model, or is declared a control of
    this section (matched MLPs, best of K and ensembles, random and frozen routing, transfer weight 0). Each other
    corrected row that was taught, or has peers, is compared with the strongest control that needs no more at inference
    and no more multiply-adds (parameters where those are not counted); a row of peers also with the strongest whose
    models took no more multiply-adds to train, whatever its inference costs. p values are Holm-corrected over the
    comparisons of one kind in this section. Bold: a corrected p below 0.05 in the first comparison, at least 0.2 points
    better, and at least ten runs.
    """
    candidates = [*solo, *(entry for entry in entries if entry.control)]
    first, second = (_compared(entries, candidates, fits) for fits in (_affordable, _as_cheap_to_train))
    return [
        replace(entry, versus=versus, versus_training=training, bold=versus is not None and versus.outcome == "win")
        for entry, versus, training in zip(entries, first, second, strict=True)
    ]


def _compared(
    entries: Sequence[TableRow], candidates: Sequence[TableRow], fits: Callable[[TableRow, TableRow], bool]
) -> list[ControlComparison | None]:
    """Of every entry its comparison with the strongest candidate that `fits`, where there is one."""
    controls = [_strongest(entry, candidates, fits) for entry in entries]
    gains = [
        None if control is None else [entry.scores[pair] - control.scores[pair] for pair in sorted(entry.planned)]
        for entry, control in zip(entries, controls, strict=True)
    ]
    statistics = iter(paired([differences for differences in gains if differences is not None]))
    found: list[ControlComparison | None] = []
    for entry, control in zip(entries, controls, strict=True):
        if control is None:
            found.append(None)
            continue
        of = next(statistics)
        result = outcome(of.difference, of.p_value) if entry.done >= MIN_RUNS else None
        found.append(ControlComparison(control.name, of.difference, of.interval, of.p_value, result))
    return found


def _strongest(
    entry: TableRow, candidates: Sequence[TableRow], fits: Callable[[TableRow, TableRow], bool]
) -> TableRow | None:
    treated = (entry.teacher is not None or entry.aggregate != "single") and not entry.control
    if not treated or not entry.complete or entry.done < 2 or entry.variant != "corrected":
        return None
    controls = [
        control
        for control in candidates
        if (control.control or control.aggregate == "single")
        and control.aggregate != "mean of peers"
        and control.key != entry.key
        and control.complete
        and control.planned == entry.planned
        and fits(control, entry)
    ]
    return max(controls, key=lambda control: sum(control.scores.values()), default=None)


def _affordable(control: TableRow, entry: TableRow) -> bool:
    """Does `control` cost at most what `entry` costs at inference?"""
    if NEEDS.index(control.needs) > NEEDS.index(entry.needs):
        return False
    for ours, theirs in ((control.macs, entry.macs), (control.parameters, entry.parameters)):
        if ours is not None and theirs is not None:
            return ours <= SLACK * theirs
    return False


def _as_cheap_to_train(control: TableRow, entry: TableRow) -> bool:
    """Did the models of `control` cost at most what the peers of `entry` cost to train?"""
    ours, theirs = control.training_macs, entry.training_macs
    return entry.aggregate != "single" and ours is not None and theirs is not None and ours <= SLACK * theirs
