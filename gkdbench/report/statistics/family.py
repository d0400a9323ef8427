"""Many comparisons at once: step-down max-T over joint sign flips (Westfall and Young 1993, algorithm 2.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gkdbench.report.statistics.descriptive import finite
from gkdbench.report.statistics.signflip import EXACT_UP_TO, half_of_subsets

Run = tuple[int, int]
"""Split index and seed."""
JOINT_FLIPS = 20_000
"""Of a family with more than 16 runs. A p value of 0.05 has a standard error of 0.0015."""
_BLOCK = 4_096  # patterns at a time: bounded memory for large families
_ROUNDING = 1e-12


def step_down(lines: Sequence[Mapping[Run, float]], *, flips: int = JOINT_FLIPS, seed: int = 0) -> list[float]:
    """Family-wise p values of "each line's differences lie symmetrically around 0", in the order of `lines`.

    A pattern flips a run in all lines at once, so that what lines share (a split, a teacher, a rival) stays in them.
    A line's statistic is the absolute sum of its differences over the root of their sum of squares, which no flip
    changes: it grows with the paired t, whatever the number of runs. Flips are enumerated up to 16 runs over all lines;
    above, each run has its own seeded stream, so that a further run leaves the flips of the others as they are.

    Args:
        lines: of each comparison its differences by run; not all zero. flips, seed: of sampled patterns.
    """
    if not lines:
        return []
    runs = sorted({run for line in lines for run in line})
    place = {run: number for number, run in enumerate(runs)}
    table = np.zeros((len(runs), len(lines)))  # [R, m]; 0 where a line lacks a run
    for column, line in enumerate(lines):
        table[[place[run] for run in line], column] = finite(list(line.values()))
    return step_down_of(table, _signs(runs, flips, seed)).tolist()  # type: ignore[no-any-return]


def step_down_of(table: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same of a table [R, m] of differences under the sign patterns [P, R], the first of which flips none: [m]."""
    root = np.sqrt((table**2).sum(axis=0))
    scaled = table / np.where(root > 0, root, 1.0)
    observed = np.abs(scaled.sum(axis=0))
    order = np.argsort(-observed, kind="stable")
    least = observed[order] - _ROUNDING
    hits = np.zeros(order.size)
    for start in range(0, signs.shape[0], _BLOCK):
        drawn = np.abs(signs[start : start + _BLOCK] @ scaled[:, order])  # [P, m], largest observed first
        highest = np.maximum.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
        hits += (highest >= least).sum(axis=0)
    p = np.empty(order.size)
    p[order] = np.maximum.accumulate(hits / signs.shape[0])
    return np.asarray(p, dtype=np.float64)


def _signs(runs: Sequence[Run], flips: int, seed: int) -> NDArray[np.float64]:
    """Patterns [P, R] of 1 and -1, the first of them without a flip."""
    if len(runs) <= EXACT_UP_TO:
        return 1.0 - 2.0 * half_of_subsets(len(runs))
    return np.stack([_stream(run, flips, seed) for run in runs], axis=1)


@lru_cache(maxsize=512)
def _stream(run: Run, flips: int, seed: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng([seed, *run]).integers(0, 2, size=flips + 1, dtype=np.int8)
    drawn[0] = 0
    return np.where(drawn == 1, -1.0, 1.0)
