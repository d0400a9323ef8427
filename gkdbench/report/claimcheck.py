"""Claims of publications put to the test on records: paired differences per place, and a verdict by fixed rules.

The rules (a place is one data set, split id and reported setting; the strongest rival of a place is the one that
leaves the candidate the smallest difference; p values are Holm-corrected over all lines of the claim):

- supported: against the strongest rival it wins at least half of the places and loses none;
- not supported: it wins none, and at least half of the places exclude a gain (a loss, or an interval of the mean
  difference that ends below 0.2 points);
- undecided: anything else, and whenever a place has fewer than ten pairs.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gkdbench.errors import UserError, nearest
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import Arrays, row_arrays
from gkdbench.report.entries import entries, tutors
from gkdbench.report.model import Aggregate, Entry
from gkdbench.report.statistics import MIN_RUNS, TIE, Outcome, bootstrap_interval, holm, outcome, sign_flip_p

Verdict = Literal["supported", "not supported", "undecided"]
Pair = tuple[int, int]
Values = tuple[list[float], list[float], list[float]]
"""Per run the candidate's value, the rival's, and the gain, positive where the candidate is better."""
Kind = Literal["better", "steadier", "sooner"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Side(_Strict):
    """Which row of a place takes part.

    Args:
        name: as the page calls it.
        method, variant: of the record. config: fields it must have; tables are compared key by key.
        places: "<data set> <split id>" -> more such fields there.
        teacher: the same for its teachers' configuration; None: any.
        aggregate: which row of a record with several models.
    """

    name: str
    method: str
    variant: str = "corrected"
    config: dict[str, Any] = {}
    places: dict[str, dict[str, Any]] = {}
    teacher: dict[str, Any] | None = None
    aggregate: Aggregate = "single"

    def find(self, records: Sequence[Record], dataset: str, split: str, setting: str) -> Entry | None:
        """Its row in a place, None when no record has it.

        Raises:
            UserError: two records fit.
        """
        fitting = [r for r in records if (r.dataset, r.split) == (dataset, split) and self._fits(r)]
        fitting = [r for r in fitting if setting in r.columns]
        if len(fitting) > 1:
            keys = ", ".join(r.key[:12] for r in fitting)
            raise UserError(f"{self.name!r} fits several records on {dataset}, {split}: {keys}; name more fields")
        rows = [e for r in fitting for e in entries(r, setting) if e.aggregate == self.aggregate]
        return rows[0] if rows else None

    def _fits(self, record: Record) -> bool:
        taught = [info.config for info in tutors(record.teachers).values()]
        return (
            (record.method, record.variant) == (self.method, self.variant)
            and _within(self.config, record.config)
            and _within(self.places.get(f"{record.dataset} {record.split}", {}), record.config)
            and (self.teacher is None or any(_within(self.teacher, config) for config in taught))
        )


class ClaimTest(_Strict):
    """One claim and how it is tested.

    Args:
        says: the claim, in our words. source: where it is made. reads: how the test stands for it.
        test: ``better``: higher scores; ``steadier``: smaller deviations from its own median run; ``sooner``: a
            smaller share of the epochs after which the rival had its best validation score, until that score is
            reached (peer by peer; never reached counts as twice as many).
        candidate, against: names of the page's rows.
        datasets, splits, settings: places; those that a split lacks are left out.
    """

    says: str
    source: str
    reads: str
    test: Kind = "better"
    candidate: str
    against: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    splits: Annotated[list[str], Field(min_length=1)]
    settings: Annotated[list[str], Field(min_length=1)]


class Figure(_Strict):
    """Readings of runs beside each other: numbers that methods leave in ``extra``.

    Args:
        says: its heading. reads: what the numbers mean.
        rows: names of the page's rows. readings: name in ``extra`` -> as the figure calls it.
        dataset, split, setting: the place.
    """

    says: str
    reads: str
    rows: Annotated[list[str], Field(min_length=1)]
    readings: Annotated[dict[str, str], Field(min_length=1)]
    dataset: str
    split: str
    setting: str


class ClaimPage(_Strict):
    """One page of claims: what stands around the tests is text, everything else is computed."""

    title: str
    intro: str
    outro: str = ""
    row: dict[str, Side]
    claim: Annotated[list[ClaimTest], Field(min_length=1)]
    figure: list[Figure] = []

    @model_validator(mode="after")
    def _rows_are_there(self) -> ClaimPage:
        used = [name for claim in self.claim for name in (claim.candidate, *claim.against)]
        for name in [*used, *(name for figure in self.figure for name in figure.rows)]:
            if name not in self.row:
                raise ValueError(f"no row {name!r}; {nearest(name, self.row)}")
        return self


@dataclass(frozen=True, slots=True)
class Line:
    """Candidate against one rival in one place; differences in [-1, 1], positive where the candidate is better.

    Means are scores, deviations of scores, or evaluations, as the claim's test has it.
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
    outcome: Outcome | None  # None with fewer than ten pairs


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim with its lines and verdict; `absent` names rows that no record has."""

    claim: ClaimTest
    lines: tuple[Line, ...]
    absent: tuple[str, ...]
    verdict: Verdict

    @property
    def deciding(self) -> list[Line]:
        """Against the strongest rival of each place."""
        return [line for line in self.lines if line.strongest]


def load_page(path: Path) -> ClaimPage:
    """The page that a TOML file describes.

    Raises:
        UserError: not valid TOML, an unknown key or a wrong type.
    """
    try:
        return ClaimPage.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: {wrong}") from None


Curves = Callable[[Record], Arrays]
"""A record -> the arrays of its side-car."""


def check(
    claim: ClaimTest, rows: Mapping[str, Side], records: Sequence[Record], curves: Curves | None = None
) -> Checked:
    """Test `claim` on `records`, its `rows` by name; ``sooner`` reads validation `curves`."""
    lines: list[Line] = []
    absent: list[str] = []
    for dataset in claim.datasets:
        for split in claim.splits:
            columns = {column for r in records if (r.dataset, r.split) == (dataset, split) for column in r.columns}
            absent += [] if columns else [f"anything on {dataset}, {split}"]
            for setting in claim.settings:
                if setting in columns:
                    lines += _lines(claim, rows, records, (dataset, split, setting), absent, curves)
    corrected = holm([line.p_value for line in lines])
    found = tuple(_decided(claim.test, line, p) for line, p in zip(lines, corrected, strict=True))
    return Checked(claim, found, tuple(absent), _verdict(claim.test, found, absent))


def _lines(
    claim: ClaimTest,
    sides: Mapping[str, Side],
    records: Sequence[Record],
    place: tuple[str, str, str],
    absent: list[str],
    curves: Curves | None,
) -> list[Line]:
    candidate = sides[claim.candidate]
    ours = candidate.find(records, *place)
    rivals = {sides[name].name: sides[name].find(records, *place) for name in claim.against}
    rows = {candidate.name: ours, **rivals}
    absent += [f"{name} on {', '.join(place)}" for name, row in rows.items() if row is None or not row.complete]
    if ours is None:
        return []
    by_key = {record.key: record for record in records}

    def values(ours: Entry, theirs: Entry, pairs: Sequence[Pair]) -> Values:
        if claim.test != "sooner":
            return _VALUES[claim.test](ours, theirs, pairs)
        if curves is None:
            raise UserError("a claim of sooner reads side-cars; check it through `gkdbench report --claims`")
        return epochs_to_reach(curves(by_key[ours.key]), curves(by_key[theirs.key]), pairs)

    found = [_line(values, place, ours, name, rival) for name, rival in rivals.items() if rival is not None]
    found = [line for line in found if line.pairs]
    best = min((line.difference for line in found), default=None)
    return [replace(line, strongest=line.difference == best) for line in found]


def _line(
    values: Callable[[Entry, Entry, Sequence[Pair]], Values],
    place: tuple[str, str, str],
    ours: Entry,
    name: str,
    rival: Entry,
) -> Line:
    pairs = sorted(ours.scores.keys() & rival.scores.keys())
    first, second, gains = values(ours, rival, pairs) if pairs else ([0.0], [0.0], [0.0])
    return Line(
        place=place,
        rival=name,
        strongest=False,
        pairs=len(pairs),
        mean=fmean(first),
        mean_rival=fmean(second),
        difference=fmean(gains),
        interval=bootstrap_interval(gains),
        p_value=sign_flip_p(gains),
        outcome=None,
    )


def _scores(ours: Entry, theirs: Entry, pairs: Sequence[Pair]) -> Values:
    a, b = ([row.scores[pair] for pair in pairs] for row in (ours, theirs))
    return a, b, [x - y for x, y in zip(a, b, strict=True)]


def _deviations(ours: Entry, theirs: Entry, pairs: Sequence[Pair]) -> Values:
    """How far each run lies from the median run (Brown and Forsythe's measure of spread, paired)."""
    a, b = ([abs(row.scores[p] - median(row.scores[q] for q in pairs)) for p in pairs] for row in (ours, theirs))
    return a, b, [y - x for x, y in zip(a, b, strict=True)]


_VALUES: Mapping[Kind, Callable[[Entry, Entry, Sequence[Pair]], Values]] = {"better": _scores, "steadier": _deviations}


def epochs_to_reach(ours: Arrays, theirs: Arrays, pairs: Sequence[Pair]) -> Values:
    """Per run, evaluations until our validation curve reaches the best value of theirs, theirs, and the share saved.

    Peers are paired by name and averaged. A level that is never reached counts as twice the rival's evaluations, and
    no run counts for more than that.
    """
    needed, had, saved = [], [], []
    for index, seed in pairs:
        a, b = row_arrays(ours, index, seed), row_arrays(theirs, index, seed)
        both = sorted(name for name in a.keys() & b.keys() if name.endswith("/val/curve"))
        if not both:
            raise UserError(f"run {(index, seed)} has no validation curve of the same model on both sides")
        reached = [_first(b[name], b[name].max()) for name in both]
        ends = [min(2 * e, _first(a[name], b[name].max())) for e, name in zip(reached, both, strict=True)]
        needed.append(fmean(ends))
        had.append(fmean(reached))
        saved.append(fmean((e - end) / e for e, end in zip(reached, ends, strict=True)))
    return needed, had, saved


def _first(curve: NDArray[Any], level: float) -> float:
    """Evaluations until `curve` is at `level` or above, from 1; infinite when it never is."""
    at = np.flatnonzero(curve >= level)
    return float(at[0] + 1) if at.size else math.inf


def _decided(test: Kind, line: Line, p_value: float) -> Line:
    if line.pairs < MIN_RUNS:
        return replace(line, p_value=p_value)
    if test == "better":
        return replace(line, p_value=p_value, outcome=outcome(line.difference, p_value))
    significant: Outcome = "win" if line.difference > 0 else "loss"
    return replace(line, p_value=p_value, outcome=significant if p_value < 0.05 else "tie")


def _verdict(test: Kind, lines: Sequence[Line], absent: Sequence[str]) -> Verdict:
    """See the module."""
    deciding = [line for line in lines if line.strongest]
    if not deciding or absent or any(line.outcome is None for line in lines):
        return "undecided"
    wins = sum(line.outcome == "win" for line in deciding)
    losses = sum(line.outcome == "loss" for line in deciding)
    if 2 * wins >= len(deciding) and not losses:
        return "supported"
    least = TIE if test == "better" else 0.0
    excluded = sum(line.outcome == "loss" or line.interval[1] < least for line in deciding)
    return "not supported" if not wins and 2 * excluded >= len(deciding) else "undecided"


def _within(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(
        key in found and (_within(value, found[key]) if isinstance(value, dict) else found[key] == value)
        for key, value in wanted.items()
    )
