"""What a claim compares: from records to differences by run, place by place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.report.claimfile import ClaimKind, ClaimPart, ClaimTest, Side
from gkdbench.report.convergence import Pair, Speedup, arrivals, pace
from gkdbench.report.model import TableRow
from gkdbench.report.overlap import overlap_ratio

ClaimCondition = tuple[str, str, str]
"""Data set, split id, reported setting."""
Values = tuple[list[float], list[float], list[float]]
"""Per run the candidate's value, the rival's, and the gain, positive where the candidate is better."""
Curves = Callable[[Record], SidecarArrays]
"""A record -> the arrays of its side-car."""


@dataclass(frozen=True, slots=True)
class Rivalry:
    """Candidate and one rival in one place, run by run.

    Attributes:
        rival: its position among the claim's rivals. name, candidate: as the page calls them.
        ratio: of test to training items, where splits overlap.
    """

    place: ClaimCondition
    rival: int
    candidate: str
    name: str
    mean: float
    mean_rival: float
    gains: Mapping[Pair, float]
    ratio: float | None = None
    pace: Speedup | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """All rivalries of a claim, and which rows no record has (in words, by the rivals that lack them)."""

    rivalries: tuple[Rivalry, ...]
    absent: tuple[str, ...]
    lacking: frozenset[int]


def gather(
    claim: ClaimTest, sides: Mapping[str, Side], records: Sequence[Record], curves: Curves | None = None
) -> Gathered:
    """The rivalries of `claim` in `records`, which are of one protocol."""
    rivalries: list[Rivalry] = []
    absent: dict[str, None] = {}
    lacking: set[int] = set()
    for part in claim.parts:
        for dataset, split in part.where:
            columns = {column for r in records if (r.dataset, r.split) == (dataset, split) for column in r.columns}
            if not columns:
                absent[f"anything on {dataset}, {split}"] = None
                lacking.update(range(len(part.against)))
            for setting in part.settings:
                if setting in columns:
                    place = (dataset, split, setting)
                    rivalries += _of_place(claim.test, part, sides, records, place, absent, lacking, curves)
    return Gathered(tuple(rivalries), tuple(absent), frozenset(lacking))


def _of_place(
    test: ClaimKind,
    part: ClaimPart,
    sides: Mapping[str, Side],
    records: Sequence[Record],
    place: ClaimCondition,
    absent: dict[str, None],
    lacking: set[int],
    curves: Curves | None,
) -> list[Rivalry]:
    candidate = sides[part.candidate]
    ours = candidate.find(records, *place)
    rivals = [(sides[name], sides[name].find(records, *place)) for name in part.against]
    for side, row in [(candidate, ours), *rivals]:
        if row is None or not row.complete:
            absent[f"{side.name} on {', '.join(place)}"] = None
    if ours is None or not ours.complete:
        lacking.update(range(len(rivals)))
    by_key = {record.key: record for record in records}
    found = []
    for number, (side, theirs) in enumerate(rivals):
        if theirs is None or not theirs.complete:
            lacking.add(number)
        pairs = sorted(ours.scores.keys() & theirs.scores.keys()) if ours and theirs else []
        if not ours or not theirs or not pairs:
            continue
        values, speed = _measured(test, ours, theirs, pairs, by_key, curves)
        first, second, gains = values
        ratio = overlap_ratio(by_key[ours.key], place[2])
        by_run = dict(zip(pairs, gains, strict=True))
        found.append(
            Rivalry(place, number, candidate.name, side.name, fmean(first), fmean(second), by_run, ratio, speed)
        )
    return found


def _measured(
    test: ClaimKind,
    ours: TableRow,
    theirs: TableRow,
    pairs: Sequence[Pair],
    by_key: Mapping[str, Record],
    curves: Curves | None,
) -> tuple[Values, Speedup | None]:
    if test != "sooner":
        return (_deviations if test == "steadier" else _scores)(ours, theirs, pairs), None
    if curves is None:
        raise UserError("a claim of sooner reads side-cars; check it through `gkdbench report --claims`")
    mine, other = by_key[ours.key], by_key[theirs.key]
    runs = arrivals(curves(mine), curves(other), pairs)
    values = [run.ours for run in runs], [run.theirs for run in runs], [run.saved for run in runs]
    return values, pace(mine, other, runs, pairs)


def _scores(ours: TableRow, theirs: TableRow, pairs: Sequence[Pair]) -> Values:
    a, b = ([row.scores[pair] for pair in pairs] for row in (ours, theirs))
    return a, b, [x - y for x, y in zip(a, b, strict=True)]


def _deviations(ours: TableRow, theirs: TableRow, pairs: Sequence[Pair]) -> Values:
    """How far each run is from the median run (Brown and Forsythe's measure of spread, paired)."""
    a, b = ([abs(row.scores[p] - median(row.scores[q] for q in pairs)) for p in pairs] for row in (ours, theirs))
    return a, b, [y - x for x, y in zip(a, b, strict=True)]


def worst_regrets(
    claim: ClaimTest, sides: Mapping[str, Side], records: Sequence[Record]
) -> dict[str, dict[Pair, float]]:
    """Row -> run -> how far it is below the best of the claim's rows, in the place where that is most.

    Runs that all rows have in all places; rows that lack a place are left out of it, and of the result.
    """
    names = [claim.candidate, *claim.against]
    places = [(*where, setting) for where in claim.where for setting in claim.settings]
    found = [{name: sides[name].find(records, *place) for name in names} for place in places]
    found = [rows for rows in found if any(row is not None for row in rows.values())]
    whole = [name for name in names if found and all(rows[name] is not None for rows in found)]
    scores = [{name: row.scores for name in whole if (row := rows[name]) is not None} for rows in found]
    runs = sorted(set.intersection(*(set(of) for place in scores for of in place.values()))) if whole else []
    return {
        name: {run: max(max(of[run] for of in place.values()) - place[name][run] for place in scores) for run in runs}
        for name in whole
    }
