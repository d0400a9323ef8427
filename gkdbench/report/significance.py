"""Which rows may be called better: paired against the strongest control of equal or lower cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gkdbench.report.model import Entry, Versus
from gkdbench.report.statistics import MIN_RUNS, bootstrap_interval, holm, outcome, sign_flip_p

NEEDS = ("features", "features+encodings", "graph")  # in the order of what inference costs
SLACK = 1.01  # a control matched in multiply-adds may be 1% larger (methods, G2)


def against_controls(entries: Sequence[Entry], solo: Sequence[Entry]) -> list[Entry]:
    """`entries` with `versus` and `bold` filled.

    A control is a corrected row on the same runs that was trained alone, as one model, or is declared a control of
    this section (matched MLPs, best of K and ensembles, random and frozen routing, transfer weight 0); it needs no
    more at inference and no more multiply-adds (parameters where those are not counted). Each other corrected row
    that was taught, or has peers, is compared with the strongest of its controls; p values are Holm-corrected over
    the comparisons of this section. Bold: a corrected p below 0.05, at least 0.2 points better, and at least ten runs.
    """
    candidates = [*solo, *(entry for entry in entries if entry.control)]
    pairs = [(entry, control) for entry in entries if (control := _strongest(entry, candidates)) is not None]
    differences = {id(e): [e.scores[pair] - c.scores[pair] for pair in sorted(e.planned)] for e, c in pairs}
    p_values = holm([sign_flip_p(differences[id(entry)]) for entry, _ in pairs])
    found = {}
    for (entry, control), p_value in zip(pairs, p_values, strict=True):
        gains = differences[id(entry)]
        mean = sum(gains) / len(gains)
        result = outcome(mean, p_value) if entry.done >= MIN_RUNS else None
        versus = Versus(control.name, mean, bootstrap_interval(gains), p_value, result)
        found[id(entry)] = replace(entry, versus=versus, bold=result == "win")
    return [found.get(id(entry), entry) for entry in entries]


def _strongest(entry: Entry, candidates: Sequence[Entry]) -> Entry | None:
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
        and _affordable(control, entry)
    ]
    return max(controls, key=lambda control: sum(control.scores.values()), default=None)


def _affordable(control: Entry, entry: Entry) -> bool:
    """Does `control` cost at most what `entry` costs at inference?"""
    if NEEDS.index(control.needs) > NEEDS.index(entry.needs):
        return False
    for ours, theirs in ((control.macs, entry.macs), (control.parameters, entry.parameters)):
        if ours is not None and theirs is not None:
            return ours <= SLACK * theirs
    return False
