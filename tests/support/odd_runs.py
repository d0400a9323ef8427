"""Runs of two epochs on odd tasks: each ends with finite numbers, or is refused beforehand with a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.execute.grid import _check_fits
from gkdbench.testing.runs import TracedRun, Workshop, small_method
from gkdbench.training.registry import METHODS
from support.odd_data import Kind, odd_problem

LABELS = ("several labels", "labels with holes")
SIZES = ("one class", "one training item", "zero features", "no edges")
IN_FULL = ("one label", "an absent class", "constant features")


def of_kind(kind: Kind) -> list[str]:
    """Registered methods of this package for tasks of `kind`."""
    return [name for name in METHODS.names() if kind in METHODS.get(name).kinds]


def faults(folder: Path, kind: Kind, odd: Sequence[str], *, released: bool = False) -> list[str]:
    """What is wrong with the runs of every method on every one of the `odd` tasks, a sentence each.

    Args:
        released: the released forms, instead of the corrected ones.
    """
    found: list[str] = []
    for name in odd:
        problem, workshop = odd_problem(name, kind), Workshop(folder / name.replace(" ", "-"), epochs=2)
        workshop.folder.mkdir()
        for method in of_kind(kind):
            variant = "as_released" if released else "corrected"
            if variant in METHODS.get(method).variants:
                word = _fault(workshop, problem, method, variant)
                found += [f"{method} ({variant}) on {kind}s, {name}: {word}"] if word else []
    return found


def _fault(workshop: Workshop, problem: object, name: str, variant: str) -> str:
    method = small_method(name, {"variant": variant}, epochs=2)
    task = problem.task  # type: ignore[attr-defined]
    try:
        _check_fits(method, task.kind, task.multi_label, task.name)
    except UserError as refused:
        return "" if "expected" in str(refused) and method.why_one_label() in str(refused) else f"refused: {refused}"
    try:
        run = workshop.run(method, problem)  # type: ignore[arg-type]
    except Exception as error:  # a teacher that failed, a score that cannot be computed
        return f"{type(error).__name__}: {error}"
    return of_run(run)


def of_run(run: TracedRun) -> str:
    """What is wrong with a run; "" for one with finite numbers throughout."""
    if run.outcome.status != "ok":
        return f"{run.outcome.status}: {run.outcome.reason}"
    for model in run.scored.models:
        for column, score in model.scores.items():
            if not math.isfinite(score.value):
                return f"score {column} of {model.name} is {score.value}"
    for model_name, state in run.final.items():
        for key, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                return f"weights {key} of {model_name} are not finite"
    return ""
