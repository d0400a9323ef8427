"""What may be said of paired differences: better, worse, equal, or not resolved; for one line or a family of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gkdbench.report.statistics.descriptive import LEVEL, MIN_RUNS, mean_std
from gkdbench.report.statistics.family import Run, step_down
from gkdbench.report.statistics.power import MOST_RUNS, runs_to_resolve
from gkdbench.report.statistics.signflip import SignFlip, sign_flip

EQUAL = 0.005
"""Half a point: two rows whose difference surely lies within it are equal."""
ComparisonOutcome = Literal["better", "worse", "equal", "not resolved"]
OUTCOMES: tuple[ComparisonOutcome, ...] = ("better", "equal", "not resolved", "worse")
TWINS = "the same score in every run, nothing to test"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference (first minus second, positive where the first is better) with its own test and what it amounts to.

    Attributes:
        runs: shared ones. test: own sign-flip test with its interval; None where no number may be given, see `said`.
        std: of the differences, ddof=1.
        p_family: over all lines that were judged together; None where no claim is made of this one.
        outcome: None where nothing is claimed.
        extend: runs that a line which is not resolved needs, at most `MOST_RUNS` + 1.
        said: the outcome, or why there is none, in words.
    """

    runs: int
    test: SignFlip | None
    std: float | None
    p_family: float | None
    outcome: ComparisonOutcome | None
    extend: int | None
    said: str

    @property
    def difference(self) -> float | None:
        return None if self.test is None else self.test.difference

    @property
    def better(self) -> bool:
        return self.outcome == "better"


def judge(
    lines: Sequence[Mapping[Run, float]],
    *,
    margin: float | Sequence[float | None] | None = EQUAL,
    claimed: Sequence[bool] | None = None,
) -> list[Estimate]:
    """Judge the lines of one family together, each given by its differences by run.

    Better and worse: the family-wise p value (step-down max-T over joint flips) is below 0.05. Equal: two one-sided
    tests at 5 % put the difference within `margin` (the 90 % interval lies inside). Else not resolved. A line with
    fewer than ten runs is a preview: it has numbers, no word, and no part in the family.

    Args:
        lines: of each comparison its differences by (split index, seed).
        margin: of equality, in the unit of the differences; None: nothing is called equal. A sequence: of every line.
        claimed: False for lines of which nothing may be claimed although they have runs enough.
    """
    tests = [_own(line) for line in lines]
    margins = list(margin) if isinstance(margin, Sequence) else [margin] * len(lines)
    may = list(claimed) if claimed is not None else [True] * len(lines)
    members = [
        number
        for number, (test, claim) in enumerate(zip(tests, may, strict=True))
        if isinstance(test, SignFlip) and claim and test.runs >= MIN_RUNS
    ]
    family = dict(zip(members, step_down([lines[number] for number in members]), strict=True))
    found = []
    for number, (line, test) in enumerate(zip(lines, tests, strict=True)):
        if isinstance(test, str):
            found.append(Estimate(len(line), None, None, None, None, None, test))
            continue
        std = mean_std(list(line.values()))[1] or 0.0
        if number not in family:
            found.append(Estimate(test.runs, test, std, None, None, None, f"preview, {test.runs} runs"))
            continue
        p_family = max(family[number], test.p_value)
        found.append(_said(test, std, p_family, margins[number], len(members)))
    return found


def _own(line: Mapping[Run, float]) -> SignFlip | str:
    """The line's own test, or why it has none."""
    if len(line) < 2:
        return f"not compared: expected two or more shared runs, got {len(line)}"
    if not any(line.values()):
        return TWINS
    return sign_flip(list(line.values()))


def _said(test: SignFlip, std: float, p_family: float, margin: float | None, tests: int) -> Estimate:
    outcome: ComparisonOutcome = "not resolved"
    if p_family < LEVEL:
        outcome = "better" if test.difference > 0 else "worse"
    elif margin is not None and -margin < test.narrow[0] and test.narrow[1] < margin:
        outcome = "equal"
    extend = None
    said = str(outcome)
    if outcome == "not resolved":
        needed = runs_to_resolve(test.difference, std, margin=margin, tests=tests)
        extend = max(needed, test.runs + 1)
        said += f", extend to {extend} runs" if extend <= MOST_RUNS else f", needs more than {MOST_RUNS:,} runs"
    return Estimate(test.runs, test, std, p_family, outcome, extend, said)
