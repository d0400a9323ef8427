"""Ranks and regret of rows over several data sets, and whether the ranks differ at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gkdbench.report.statistics.holm import holm

Scores = Mapping[str, Mapping[str, float | None]]
"""Row -> column -> score, higher is better; None or absent: incomplete."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Of one row over all columns.

    Attributes:
        average, worst: rank, 1 is best, equal scores share the middle.
        regret, worst_regret: how far it is below the best row of a column: mean, and largest.
    """

    average: float
    worst: float
    regret: float
    worst_regret: float


@dataclass(frozen=True, slots=True)
class RankTest:
    """Friedman's test over all ranked rows, and Wilcoxon's signed-rank test of each against the best-ranked one.

    Attributes:
        friedman: p; None with fewer than three rows or two columns.
        best: the row with the best average rank. behind: row -> Holm-corrected p; none where Friedman's p is not
            below 0.05.
    """

    friedman: float | None
    best: str
    behind: Mapping[str, float]


def ranked(scores: Scores, columns: Sequence[str]) -> dict[str, Rank]:
    """Ranks of the rows that have a score in every one of `columns`; none where that is fewer than two rows."""
    names, table = _complete(scores, columns)
    if len(names) < 2:
        return {}
    ranks = _ranks(table)
    regret = table.max(axis=0) - table
    return {
        name: Rank(float(of.mean()), float(of.max()), float(lost.mean()), float(lost.max()))
        for name, of, lost in zip(names, ranks, regret, strict=True)
    }


def average_ranks(scores: Scores, columns: Sequence[str]) -> dict[str, float]:
    """The average rank of each ranked row."""
    return {name: rank.average for name, rank in ranked(scores, columns).items()}


def rank_test(scores: Scores, columns: Sequence[str]) -> RankTest | None:
    """Whether the ranks of `ranked` differ; None where nothing is ranked."""
    names, table = _complete(scores, columns)
    if len(names) < 2:
        return None
    averages = _ranks(table).mean(axis=1)
    best = min(range(len(names)), key=lambda row: (averages[row], names[row]))
    if len(names) < 3 or len(columns) < 2 or not np.ptp(table, axis=0).any():
        return RankTest(None, names[best], {})
    from scipy.stats import friedmanchisquare, wilcoxon

    friedman = float(friedmanchisquare(*table).pvalue)
    if not friedman < 0.05:
        return RankTest(friedman, names[best], {})
    others = [row for row in range(len(names)) if row != best]
    gains = [table[best] - table[row] for row in others]
    p_values = [float(wilcoxon(gain).pvalue) if gain.any() else 1.0 for gain in gains]
    return RankTest(friedman, names[best], dict(zip((names[row] for row in others), holm(p_values), strict=True)))


def _complete(scores: Scores, columns: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Names and scores [rows, columns] of the complete rows."""
    names = [name for name, row in scores.items() if columns and all(row.get(column) is not None for column in columns)]
    return names, np.array([[scores[name][column] for column in columns] for name in names], dtype=np.float64)


def _ranks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(-table, axis=0), dtype=np.float64)
