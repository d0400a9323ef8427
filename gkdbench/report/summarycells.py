"""What a row of a table across data sets shows, as text."""

from __future__ import annotations

from gkdbench.report.cells import percent, score
from gkdbench.report.model import SummaryRow
from gkdbench.report.statistics import OUTCOMES, RankTest

SUMMARY_TITLES = (
    "Regret, mean and worst", "Worst rank", "Average rank", "Better / equal / not resolved / worse"
)  # fmt: skip
SUMMARY_READS = (
    "One row a method: its options, studies and other aggregates stand under it, and have no rank. Regret: points "
    "below the best ranked row of a data set. Outcomes are against the strongest control of each table."
)


def summary_scores(row: SummaryRow) -> list[str]:
    """One text per data set: the score, with the size of the model where it differs between data sets."""
    return [
        "–" if entry is None else score(entry) + (f", {size}" if size else "")
        for entry, size in zip(row.entries, row.sizes, strict=True)
    ]


def summary_numbers(row: SummaryRow) -> list[str]:
    """The texts under `SUMMARY_TITLES`."""
    tally = " / ".join(str(row.tally[outcome]) for outcome in OUTCOMES) if row.tally else "–"
    if row.rank is None:
        return ["–", "–", "–", tally]
    rank = row.rank
    return [
        f"{percent(rank.regret)}, {percent(rank.worst_regret)}", f"{rank.worst:g}", f"{rank.average:.2f}", tally
    ]  # fmt: skip


def tested(test: RankTest | None) -> str:
    """Whether the ranks differ, in a sentence; empty where nothing is ranked."""
    if test is None or test.friedman is None:
        return ""
    text = f"Friedman's test of equal ranks: p = {test.friedman:.2g}"
    if not test.behind:
        return f"{text}; ranks are not told apart."
    apart = sum(p < 0.05 for p in test.behind.values())
    return (
        f"{text}; {apart} of {len(test.behind)} rows are told apart from {test.best}, the best-ranked "
        "(Wilcoxon's signed-rank test, Holm)."
    )
