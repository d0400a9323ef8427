"""Published numbers on our very splits: a difference that splits do not move, judged by what training alone moves.

Where a publication drew its splits as we do, the variance between splits is in both means alike and cancels in their
difference. What is left is the variance of training, which several seeds on one split show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, variance

from gkdbench.report.published import DEFAULT_RUNS, Published, VerdictStatus, grade
from gkdbench.report.statistics import Run

SAME_SPLITS: Mapping[str, tuple[str, ...]] = {"cpf-lcc-20-30": ("cora", "citeseer")}
"""Split id -> data sets on which publications draw the same ones: by numpy's RandomState, from the same files."""
SEEDS = 3
"""Training seeds that every split needs."""
STUDY = "training-seeds"
"""The study whose records hold further seeds of published rows."""
FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class TrainingJudgement:
    """One published number against ours on the publication's splits, in points.

    Attributes:
        difference: mean over splits of ours, minus the published mean. splits: how many.
        tolerance: max(0.5, 2 SE), SE of training alone on both sides; None: too few seeds.
        missing: what it would take, in words; "" where nothing is missing.
    """

    difference: float
    splits: int
    tolerance: float | None
    missing: str

    @property
    def grade(self) -> VerdictStatus | None:
        """None where there is no tolerance."""
        return None if self.tolerance is None else grade(self.difference, self.tolerance)


def judged_by_training(
    scores: Mapping[Run, float], published: Published, *, split: str, dataset: str
) -> TrainingJudgement | None:
    """The judgement of `scores`, in [0, 1] by (split index, seed); None where the splits are not the publication's.

    The publication's splits are the first so many as it has runs (ten where it does not say). The variance of training
    is that within splits, pooled over them, and taken to be the same on both sides.
    """
    if dataset not in SAME_SPLITS.get(split, ()):
        return None
    count = published.n_runs or DEFAULT_RUNS
    by_split: dict[int, list[float]] = {}
    for (index, _), value in sorted(scores.items()):
        if index < count:
            by_split.setdefault(index, []).append(100 * value)
    if not by_split:
        return None
    difference = fmean(fmean(values) for values in by_split.values()) - published.mean
    short = [index for index, values in by_split.items() if len(values) < SEEDS]
    absent = count - len(by_split)
    if short or absent:
        lacking = [f"{len(short)} of {len(by_split)} splits have fewer than {SEEDS} training seeds"] if short else []
        lacking += [f"{absent} of its {count} splits were not run"] if absent else []
        return TrainingJudgement(difference, len(by_split), None, ", ".join(lacking))
    freedom = sum(len(values) - 1 for values in by_split.values())
    within = sum((len(values) - 1) * variance(values) for values in by_split.values()) / freedom
    ours = sum(within / len(values) for values in by_split.values()) / len(by_split) ** 2
    error = math.sqrt(ours + within / count)
    return TrainingJudgement(difference, len(by_split), max(FLOOR, 2 * error), "")
