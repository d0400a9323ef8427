"""Claims of publications put to the test on records: one estimate per rival, and a verdict by fixed rules.

A claim's estimate against a rival is the mean difference over its places (a data set, split id and reported setting),
by run: the runs that all places share are the blocks. All (claim, rival) estimates of a page are one family; the lines
by place are a second one, of the rivals alone that the first told apart.

- supported: better than every rival, at a family-wise p below 0.05;
- contradicted: worse than at least one, at the same level;
- undecided: anything else, and whenever rows are missing or runs are fewer than ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gkdbench.records.schema import Record
from gkdbench.report.claimfile import ClaimTest, Side, of_one_protocol
from gkdbench.report.claimvalues import ClaimCondition, Curves, Gathered, Rivalry, gather, worst_regrets
from gkdbench.report.convergence import Speedup
from gkdbench.report.statistics import (
    EQUAL,
    MIN_RUNS,
    Estimate,
    Pooled,
    judge,
    nadeau_bengio,
    pooled,
    power_of_design,
)

ClaimVerdict = Literal["supported", "contradicted", "undecided"]
GAINS = (0.0, 0.01, 0.015, 0.02)
"""True gains over all rivals for which the power of a claim's design is printed."""


@dataclass(frozen=True, slots=True)
class RivalComparison:
    """Candidate against one rival in one place; differences in [-1, 1], positive where the candidate is better.

    Means are scores, deviations of scores, or epochs, as the claim's test has it; `pace` is that of a claim of sooner.
    A line that is not `tested` has numbers and no word: the rival's pooled estimate told nothing apart.
    """

    place: ClaimCondition
    candidate: str
    rival: str
    mean: float
    mean_rival: float
    estimate: Estimate
    t_test: tuple[float, float] | None
    tested: bool
    pace: Speedup | None = None


@dataclass(frozen=True, slots=True)
class RivalEstimate:
    """One rival over all places; `complete`: no row of it, or of the candidate, is missing."""

    rival: str
    pooled: Pooled
    estimate: Estimate
    t_test: tuple[float, float] | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim with its estimates, lines and verdict.

    Attributes:
        absent: names of rows that no record has. protocol: of all its rows (None: there are none).
        power: true gain -> probability that this design, with these runs, says "supported"; empty where not known.
        regrets: of a claim of consistency: row -> mean worst regret.
    """

    claim: ClaimTest
    rivals: tuple[RivalEstimate, ...]
    lines: tuple[RivalComparison, ...]
    absent: tuple[str, ...]
    verdict: ClaimVerdict
    protocol: int | None
    power: Mapping[float, float]
    regrets: Mapping[str, float]


def check(
    claim: ClaimTest, rows: Mapping[str, Side], records: Sequence[Record], curves: Curves | None = None
) -> Checked:
    """Test one `claim` as a page of its own, see `check_all`."""
    return check_all([claim], rows, records, curves)[0]


def check_all(
    claims: Sequence[ClaimTest], rows: Mapping[str, Side], records: Sequence[Record], curves: Curves | None = None
) -> list[Checked]:
    """Test the claims of one page on `records`, its `rows` by name; ``sooner`` reads validation `curves`.

    All rows of a claim are of one protocol version, see `gkdbench.report.claimfile.of_one_protocol`.
    """
    tests = [_gathered(claim, rows, records, curves) for claim in claims]
    estimates = iter(
        judge(
            [own.gains for one in tests for own in one.pooled],
            margin=[_margin(one.claim) for one in tests for _ in one.pooled],
        )
    )
    judged = [[next(estimates) for _ in one.pooled] for one in tests]
    passed = [
        of[line.rival].outcome in ("better", "worse")
        for one, of in zip(tests, judged, strict=True)
        for line in one.lines
    ]
    lines = iter(
        judge(
            [line.gains for one in tests for line in one.lines],
            margin=[_margin(one.claim) for one in tests for _ in one.lines],
            claimed=passed,
        )
    )
    family = sum(estimate.outcome is not None for of in judged for estimate in of)
    found = []
    for one, of in zip(tests, judged, strict=True):
        shown = tuple(_line(line, next(lines), of[line.rival]) for line in one.lines)
        rivals = tuple(
            RivalEstimate(name, own, estimate, _corrected(own.gains, one.ratio(number), estimate), complete)
            for number, (name, own, estimate, complete) in enumerate(
                zip(one.names, one.pooled, of, one.complete, strict=True)
            )
        )
        verdict = _verdict(rivals, one.gathered.absent)
        regrets = {name: sum(by.values()) / len(by) for name, by in one.regrets.items() if by}
        power = _power(one, rivals, family)
        found.append(Checked(one.claim, rivals, shown, one.gathered.absent, verdict, one.protocol, power, regrets))
    return found


@dataclass(frozen=True, slots=True)
class _Test:
    """A claim before its statistics."""

    claim: ClaimTest
    names: list[str]
    gathered: Gathered
    pooled: list[Pooled]
    protocol: int | None
    regrets: Mapping[str, Mapping[tuple[int, int], float]]

    @property
    def lines(self) -> tuple[Rivalry, ...]:
        """Lines by place; a claim of consistency has none."""
        return () if self.claim.test == "consistent" else self.gathered.rivalries

    @property
    def complete(self) -> list[bool]:
        return [number not in self.gathered.lacking for number in range(len(self.names))]

    def ratio(self, rival: int) -> float | None:
        """Of test to training items: the largest of the rival's places, None where one has no overlap."""
        found = [line.ratio for line in self.lines if line.rival == rival]
        known = [ratio for ratio in found if ratio is not None]
        return max(known) if known and len(known) == len(found) else None


def _gathered(claim: ClaimTest, rows: Mapping[str, Side], records: Sequence[Record], curves: Curves | None) -> _Test:
    sides = [rows[name] for part in claim.parts for name in (part.candidate, *part.against)]
    places = [(*where, setting) for part in claim.parts for where in part.where for setting in part.settings]
    own, protocol = of_one_protocol(sides, records, places)
    gathered = gather(claim, rows, own, curves)
    names = [rows[name].name for name in claim.against]
    regrets: dict[str, dict[tuple[int, int], float]] = {}
    if claim.test == "consistent":
        by_row = worst_regrets(claim, rows, own)
        regrets = {rows[name].name: of for name, of in by_row.items()}
        ours = by_row.get(claim.candidate, {})
        estimates = [
            pooled([{run: by_row[name][run] - ours[run] for run in ours}] if name in by_row and ours else [])
            for name in claim.against
        ]
        count = len({line.place for line in gathered.rivalries})
        estimates = [replace(of, places=count if of.gains else 0) for of in estimates]
    else:
        estimates = [
            pooled([line.gains for line in gathered.rivalries if line.rival == number]) for number in range(len(names))
        ]
    return _Test(claim, names, gathered, estimates, protocol if gathered.rivalries else None, regrets)


def _margin(claim: ClaimTest) -> float | None:
    """Of equality: half a point of score; shares of epochs have none."""
    return None if claim.test == "sooner" else EQUAL


def _line(one: Rivalry, estimate: Estimate, of_rival: Estimate) -> RivalComparison:
    return RivalComparison(
        place=one.place,
        candidate=one.candidate,
        rival=one.name,
        mean=one.mean,
        mean_rival=one.mean_rival,
        estimate=estimate,
        t_test=_corrected(one.gains, one.ratio, estimate),
        tested=of_rival.outcome in ("better", "worse"),
        pace=one.pace,
    )


def _corrected(gains: Mapping[tuple[int, int], float], ratio: float | None, of: Estimate) -> tuple[float, float] | None:
    """Nadeau and Bengio's t and p, where splits overlap and there is something to test."""
    if ratio is None or of.test is None or not of.std:
        return None
    return nadeau_bengio(list(gains.values()), ratio)


def _power(one: _Test, rivals: Sequence[RivalEstimate], family: int) -> dict[float, float]:
    """Of the claim's design, from the spread and the correlation of its differences over the runs of all rivals."""
    runs = set.intersection(*(set(of.gains) for of in one.pooled)) if one.pooled else set()
    known = all(of.estimate.outcome is not None for of in rivals)
    if one.claim.test == "sooner" or len(runs) < MIN_RUNS or not known:
        return {}
    table = np.array([[of.gains[run] for of in one.pooled] for run in sorted(runs)])
    spread = np.atleast_2d(np.cov(table, rowvar=False))
    if not np.diag(spread).all():
        return {}
    return dict(zip(GAINS, power_of_design(GAINS, spread, len(runs), others=family - len(rivals)), strict=True))


def _verdict(rivals: Sequence[RivalEstimate], absent: Iterable[str]) -> ClaimVerdict:
    """See the module."""
    if any(of.estimate.outcome == "worse" and of.complete for of in rivals):
        return "contradicted"
    whole = not tuple(absent) and all(of.complete for of in rivals)
    return "supported" if whole and all(of.estimate.better for of in rivals) else "undecided"
