"""Claims of publications put to the test on records: paired differences per place, and a verdict by fixed rules.

The rules (a place is one data set, split id and reported setting; the strongest rival of a place is the one that
leaves the candidate the smallest difference; p values are Holm-corrected over all lines of the claim):

- supported: against the strongest rival it wins at least half of the places and loses none;
- not supported: it wins none, and at least half of the places exclude a gain (a loss, or an interval of the mean
  difference that ends below 0.2 points);
- undecided: anything else, and whenever a place has fewer than ten pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.report.claimfile import ClaimKind, ClaimTest, Side, of_one_protocol
from gkdbench.report.convergence import Pair, Speedup, arrivals, pace
from gkdbench.report.model import TableRow
from gkdbench.report.statistics import MIN_RUNS, TIE, ComparisonOutcome, Paired, outcome, paired

ClaimVerdict = Literal["supported", "not supported", "undecided"]
Values = tuple[list[float], list[float], list[float]]
"""Per run the candidate's value, the rival's, and the gain, positive where the candidate is better."""


@dataclass(frozen=True, slots=True)
class RivalComparison:
    """Candidate against one rival in one place; differences in [-1, 1], positive where the candidate is better.

    Means are scores, deviations of scores, or epochs, as the claim's test has it; `pace` is that of a claim of sooner.
    """

    place: tuple[str, str, str]
    rival: str
    strongest: bool
    pairs: int
    mean: float
    mean_rival: float
    difference: float
    interval: tuple[float, float]
    p_value: float  # Holm, over the claim
    outcome: ComparisonOutcome | None  # None with fewer than ten pairs
    pace: Speedup | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim with its lines and verdict; `absent` names rows that no record has, `protocol` is that of all its rows
    (None: there are none)."""

    claim: ClaimTest
    lines: tuple[RivalComparison, ...]
    absent: tuple[str, ...]
    verdict: ClaimVerdict
    protocol: int | None

    @property
    def deciding(self) -> list[RivalComparison]:
        """Against the strongest rival of each place."""
        return [line for line in self.lines if line.strongest]


Curves = Callable[[Record], SidecarArrays]
"""A record -> the arrays of its side-car."""


def check(
    claim: ClaimTest, rows: Mapping[str, Side], records: Sequence[Record], curves: Curves | None = None
) -> Checked:
    """Test `claim` on `records`, its `rows` by name; ``sooner`` reads validation `curves`.

    All rows are of one protocol version, see `gkdbench.report.claimfile.of_one_protocol`.
    """
    sides = [rows[name] for name in (claim.candidate, *claim.against)]
    places = [(dataset, split, setting) for dataset, split in claim.where for setting in claim.settings]
    records, protocol = of_one_protocol(sides, records, places)
    rivalries: list[_Rivalry] = []
    absent: list[str] = []
    for dataset, split in claim.where:
        columns = {column for r in records if (r.dataset, r.split) == (dataset, split) for column in r.columns}
        absent += [] if columns else [f"anything on {dataset}, {split}"]
        for setting in claim.settings:
            if setting in columns:
                rivalries += _rivalries(claim, rows, records, (dataset, split, setting), absent, curves)
    statistics = paired([one.values[2] for one in rivalries])
    found = tuple(_line(claim.test, one, of) for one, of in zip(rivalries, statistics, strict=True))
    version = protocol if found else None
    return Checked(claim, found, tuple(absent), _verdict(claim.test, found, absent), version)


@dataclass(frozen=True, slots=True)
class _Rivalry:
    """A line before its statistics."""

    place: tuple[str, str, str]
    rival: str
    values: Values
    pace: Speedup | None
    strongest: bool = False


def _rivalries(
    claim: ClaimTest,
    sides: Mapping[str, Side],
    records: Sequence[Record],
    place: tuple[str, str, str],
    absent: list[str],
    curves: Curves | None,
) -> list[_Rivalry]:
    candidate = sides[claim.candidate]
    ours = candidate.find(records, *place)
    rivals = {sides[name].name: sides[name].find(records, *place) for name in claim.against}
    rows = {candidate.name: ours, **rivals}
    absent += [f"{name} on {', '.join(place)}" for name, row in rows.items() if row is None or not row.complete]
    if ours is None:
        return []
    by_key = {record.key: record for record in records}

    def measured(theirs: TableRow, pairs: Sequence[Pair]) -> tuple[Values, Speedup | None]:
        if claim.test != "sooner":
            return _VALUES[claim.test](ours, theirs, pairs), None
        if curves is None:
            raise UserError("a claim of sooner reads side-cars; check it through `gkdbench report --claims`")
        mine, other = by_key[ours.key], by_key[theirs.key]
        runs = arrivals(curves(mine), curves(other), pairs)
        values = [run.ours for run in runs], [run.theirs for run in runs], [run.saved for run in runs]
        return values, pace(mine, other, runs, pairs)

    found = []
    for name, rival in rivals.items():
        if rival is not None and (pairs := sorted(ours.scores.keys() & rival.scores.keys())):
            found.append(_Rivalry(place, name, *measured(rival, pairs)))
    best = min((fmean(one.values[2]) for one in found), default=None)
    return [replace(one, strongest=fmean(one.values[2]) == best) for one in found]


def _line(test: ClaimKind, one: _Rivalry, of: Paired) -> RivalComparison:
    first, second, gains = one.values
    decided = outcome(of.difference, of.p_value, tie=_tie(test)) if len(gains) >= MIN_RUNS else None
    return RivalComparison(
        place=one.place,
        rival=one.rival,
        strongest=one.strongest,
        pairs=len(gains),
        mean=fmean(first),
        mean_rival=fmean(second),
        difference=of.difference,
        interval=of.interval,
        p_value=of.p_value,
        outcome=decided,
        pace=one.pace,
    )


def _tie(test: ClaimKind) -> float:
    """Below it a difference is not conclusive; for scores alone there is such a bound."""
    return TIE if test == "better" else 0.0


def _scores(ours: TableRow, theirs: TableRow, pairs: Sequence[Pair]) -> Values:
    a, b = ([row.scores[pair] for pair in pairs] for row in (ours, theirs))
    return a, b, [x - y for x, y in zip(a, b, strict=True)]


def _deviations(ours: TableRow, theirs: TableRow, pairs: Sequence[Pair]) -> Values:
    """How far each run is from the median run (Brown and Forsythe's measure of spread, paired)."""
    a, b = ([abs(row.scores[p] - median(row.scores[q] for q in pairs)) for p in pairs] for row in (ours, theirs))
    return a, b, [y - x for x, y in zip(a, b, strict=True)]


_VALUES: Mapping[ClaimKind, Callable[[TableRow, TableRow, Sequence[Pair]], Values]] = {
    "better": _scores,
    "steadier": _deviations,
}


def _verdict(test: ClaimKind, lines: Sequence[RivalComparison], absent: Sequence[str]) -> ClaimVerdict:
    """See the module."""
    deciding = [line for line in lines if line.strongest]
    if not deciding or absent or any(line.outcome is None for line in lines):
        return "undecided"
    wins = sum(line.outcome == "win" for line in deciding)
    losses = sum(line.outcome == "loss" for line in deciding)
    if 2 * wins >= len(deciding) and not losses:
        return "supported"
    excluded = sum(line.outcome == "loss" or line.interval[1] < _tie(test) for line in deciding)
    return "not supported" if not wins and 2 * excluded >= len(deciding) else "undecided"
