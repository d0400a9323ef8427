"""Two methods, run by run: every common data set, split and setting, with the statistics of protocol.md, section 5."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report.board import table_of
from gkdbench.report.cells import interval_text, percent, points
from gkdbench.report.entries import entries, taught_by, teaching_roles
from gkdbench.report.loading import without_repeats
from gkdbench.report.model import TableRow
from gkdbench.report.overlap import overlap_ratio
from gkdbench.report.protocols import best_protocol, of_protocol, protocol_text
from gkdbench.report.statistics import (
    MIN_RUNS,
    OUTCOMES,
    ComparisonOutcome,
    Estimate,
    judge,
    nadeau_bengio,
)


@dataclass(frozen=True, slots=True)
class FlatRuns:
    """How many of a side's runs have a flat model, and how many were taught by a flat teacher."""

    runs: int
    flat: int
    flat_teacher: int

    @classmethod
    def of(cls, row: TableRow) -> FlatRuns | None:
        """Of `row`; None where that was not recorded."""
        if row.flat is None or row.flat_teacher is None:
            return None
        return cls(row.done, row.flat, row.flat_teacher)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One data set, split and setting; scores and differences (first - second) in [0, 1] and [-1, 1]."""

    dataset: str
    split: str
    setting: str
    first: str
    second: str
    pairs: int
    unpaired: int  # runs of either side that lack a partner with a score
    mean_first: float
    mean_second: float
    difference: float | None  # None, as the next four: nothing can be tested, see `said`
    std: float | None  # ddof=1, of the differences
    interval: tuple[float | None, float | None] | None  # 95%, of the sign-flip test; an end that is open is None
    p_value: float | None  # of the sign-flip test
    p_family: float | None  # over all lines (step-down max-T); None for a preview
    t_test: tuple[float, float] | None  # Nadeau-Bengio t and p, where splits overlap
    outcome: ComparisonOutcome | None  # None for a preview: nothing is claimed
    extend: int | None  # runs that a line which is not resolved needs
    said: str  # the outcome, or why there is none
    flat_first: FlatRuns | None = None  # of the runs of each side; None: not recorded (protocol 1)
    flat_second: FlatRuns | None = None

    @property
    def preview(self) -> bool:
        """Fewer pairs than the protocol asks for, or runs without a partner."""
        return self.pairs < MIN_RUNS or self.unpaired > 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts under `TITLES`."""
        low, high = self.interval or (None, None)
        interval = interval_text((-math.inf if low is None else low, math.inf if high is None else high))
        return (
            f"{self.dataset} · {self.split} · {self.setting}",
            percent(self.mean_first),
            percent(self.mean_second),
            f"{self.pairs}" + (f" (+{self.unpaired} unpaired)" if self.unpaired else ""),
            "–" if self.difference is None else f"{points(self.difference)} {interval}",
            "–" if self.p_value is None else f"{self.p_value:.2g}",
            "–" if self.p_family is None else f"{self.p_family:.2g}",
            "–" if self.t_test is None else f"{self.t_test[0]:.2f}, {self.t_test[1]:.2g}",
            self.said,
        )


TITLES = ("Where", "First", "Second", "Runs", "Difference", "p", "Family p", "Corrected t, p", "Result")
READS = (
    "Difference with its 95% interval and p: sign-flip test over shared runs. Family p: over all lines here (step-down "
    "max-T); better and worse follow it. Equal: surely within 0.5 points. Corrected t: Nadeau and Bengio's, where "
    "splits overlap."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found; all rows are of one protocol version."""

    lines: tuple[PairedComparison, ...]
    protocol: int

    @property
    def tally(self) -> Counter[ComparisonOutcome]:
        """How often the first side is better, equal, not resolved, worse."""
        return Counter(line.outcome for line in self.lines if line.outcome)

    def to_text(self, *, width: int = 120) -> str:
        """A table for a terminal, with the outcomes counted below."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        out = io.StringIO()
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title in TITLES:
            table.add_column(title, justify="left" if title in ("Where", "Result") else "right")
        for line in self.lines:
            table.add_row(*map(Text, line.texts))
        console = Console(file=out, width=width, color_system=None)
        console.print(
            f"{self.lines[0].first} against {self.lines[0].second}, paired by (split index, seed), "
            f"{protocol_text(self.protocol)}",
            markup=False,
        )
        console.print(table)
        counts = ", ".join(f"{self.tally[result]} {result}" for result in OUTCOMES)
        for line in self.lines:
            for name, runs in ((line.first, line.flat_first), (line.second, line.flat_second)):
                if runs is not None and (runs.flat or runs.flat_teacher):
                    where = f"{name} on {line.dataset}, {line.split}, {line.setting}"
                    counted = f"{runs.flat} of {runs.runs} runs flat, {runs.flat_teacher} taught by a flat teacher"
                    console.print(f"{where}: {counted}", markup=False)
        open_lines = sum(line.preview for line in self.lines)
        counts += f", {open_lines} preview (fewer than {MIN_RUNS} pairs, or runs unpaired)" if open_lines else ""
        console.print(f"{counts}. {READS}", markup=False)
        return "\n".join(text.rstrip() for text in out.getvalue().splitlines()) + "\n"


def compare(first: Sequence[Record], second: Sequence[Record]) -> Comparison:
    """Pair two methods by (index, seed) wherever both have a record.

    Rows of one protocol version are compared: the one that both have in most places, of equal ones the newest. Splits
    that are for audits only take no part.

    Args:
        first, second: one record per (data set, split id, training setting) on each side.

    Raises:
        UserError: nothing in common; several records of one side in one place; different data, splits, threads,
            device, tier or teachers.
    """
    sides = [[r for r in without_repeats(side) if not r.audit_only] for side in (first, second)]
    if (first and not sides[0]) or (second and not sides[1]):
        raise UserError(
            "expected records of splits with results, got audits only on one side; nothing is compared there"
        )
    version = best_protocol((r.protocol_version for side in sides for r in side), lambda v: (_shared(sides, v),))
    ours = _by_place(of_protocol(sides[0], version), "first")
    theirs = _by_place(of_protocol(sides[1], version), "second")
    common = [place for place in ours if place in theirs]
    if not common or version is None:
        shown = " and ".join(" | ".join(sorted(", ".join(p) for p in side)) or "nothing" for side in (ours, theirs))
        raise UserError(f"no data set, split id and setting in common: {shown}; compare runs of the same split id")
    pairs_of_records = []
    for place in sorted(common):
        one, two = ours[place], theirs[place]
        _same_teacher(one, two)
        for setting in one.columns:
            if setting in two.columns:
                table_of([one, two], setting)  # refuses different data, splits, threads, device or tier
                pairs_of_records.append(_paired_records(one, two, setting))
    judged = judge([pair.gains for pair in pairs_of_records], claimed=[not pair.unpaired for pair in pairs_of_records])
    lines = (_line(pair, of) for pair, of in zip(pairs_of_records, judged, strict=True))
    return Comparison(tuple(lines), version)


def _shared(sides: Sequence[Sequence[Record]], version: int) -> int:
    """In how many places both sides have a record of one protocol."""
    one, two = ({(r.dataset, r.split, r.setting) for r in of_protocol(side, version)} for side in sides)
    return len(one & two)


@dataclass(frozen=True, slots=True)
class _PairedRecords:
    """A line before its statistics."""

    dataset: str
    split: str
    setting: str
    first: TableRow
    second: TableRow
    pairs: list[tuple[int, int]]
    ratio: float | None  # of test to training items, where splits overlap

    @property
    def gains(self) -> dict[tuple[int, int], float]:
        return {pair: self.first.scores[pair] - self.second.scores[pair] for pair in self.pairs}

    @property
    def unpaired(self) -> int:
        return len(self.first.planned | self.second.planned) - len(self.pairs)


def _by_place(records: Sequence[Record], side: str) -> dict[tuple[str, str, str], Record]:
    places: dict[tuple[str, str, str], Record] = {}
    for record in records:
        other = places.setdefault((record.dataset, record.split, record.setting), record)
        if other is not record:
            raise UserError(
                f"the {side} side has two records on {record.dataset}, {record.split}, {record.setting}: {other.label} "
                f"({other.key[:12]}) and {record.label} ({record.key[:12]}); choose one by its file, or by "
                f"--{side}-only key={record.key[:12]}"
            )
    return places


def _same_teacher(one: Record, two: Record) -> None:
    """Two students are compared under one teacher; a student and a row trained alone always may be."""
    if not teaching_roles(one.teachers) or not teaching_roles(two.teachers):
        return
    keys = [{role: info.key for role, info in teaching_roles(record.teachers).items()} for record in (one, two)]
    weights = [{(row.index, row.seed): teaching_roles(row.teachers) for row in record.rows} for record in (one, two)]
    shared = weights[0].keys() & weights[1].keys()
    if keys[0] != keys[1] or any(weights[0][pair] != weights[1][pair] for pair in shared):
        raise UserError(
            f"{one.label} and {two.label} on {one.dataset}, {one.split} had different teachers "
            f"({taught_by(one)}; {taught_by(two)}); "
            f"compare students of one teacher"
        )


def _paired_records(one: Record, two: Record, setting: str) -> _PairedRecords:
    first, second = (entries(record, setting)[0] for record in (one, two))
    pairs = sorted(first.scores.keys() & second.scores.keys())
    if not pairs:
        raise UserError(
            f"{one.label} and {two.label} have no scored run in common on {one.dataset}, {one.split}, {setting}"
        )
    return _PairedRecords(one.dataset, one.split, setting, first, second, pairs, overlap_ratio(one, setting))


def _line(pair: _PairedRecords, of: Estimate) -> PairedComparison:
    pairs, test = pair.pairs, of.test
    corrected = nadeau_bengio(list(pair.gains.values()), pair.ratio) if test and pair.ratio is not None else None
    return PairedComparison(
        dataset=pair.dataset,
        split=pair.split,
        setting=pair.setting,
        first=pair.first.name,
        second=pair.second.name,
        pairs=len(pairs),
        unpaired=pair.unpaired,
        mean_first=sum(pair.first.scores[run] for run in pairs) / len(pairs),
        mean_second=sum(pair.second.scores[run] for run in pairs) / len(pairs),
        difference=of.difference,
        std=of.std,
        interval=None if test is None else (_bounded(test.interval[0]), _bounded(test.interval[1])),
        p_value=None if test is None else test.p_value,
        p_family=of.p_family,
        t_test=corrected if corrected is not None and math.isfinite(corrected[0]) else None,
        outcome=of.outcome,
        extend=of.extend,
        said=of.said,
        flat_first=FlatRuns.of(pair.first),
        flat_second=FlatRuns.of(pair.second),
    )


def _bounded(end: float) -> float | None:
    return end if math.isfinite(end) else None
