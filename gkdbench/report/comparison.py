"""Two methods, run by run: every common data set, split and setting, with the statistics of protocol.md, section 5."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report.board import table_of
from gkdbench.report.cells import percent, points
from gkdbench.report.entries import entries, taught_by, teaching_roles
from gkdbench.report.loading import without_repeats
from gkdbench.report.model import TableRow
from gkdbench.report.protocols import best_protocol, of_protocol, protocol_text
from gkdbench.report.statistics import (
    MIN_RUNS,
    ComparisonOutcome,
    Paired,
    mean_std,
    nadeau_bengio,
    outcome,
    paired,
    seeds_needed,
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
    difference: float
    std: float | None  # ddof=1, of the differences
    interval: tuple[float, float]
    p_value: float  # sign flip
    p_corrected: float  # Holm, over the lines
    t_test: tuple[float, float] | None  # Nadeau-Bengio t and p, when the test/train ratio is given
    outcome: ComparisonOutcome | None  # None for a preview: nothing is claimed
    seeds: int | None  # pairs that find this difference with 80% power; None: no difference, or one pair
    flat_first: FlatRuns | None = None  # of the runs of each side; None: not recorded (protocol 1)
    flat_second: FlatRuns | None = None

    @property
    def preview(self) -> bool:
        """Fewer pairs than the protocol asks for, or runs without a partner."""
        return self.pairs < MIN_RUNS or self.unpaired > 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found; all rows are of one protocol version."""

    lines: tuple[PairedComparison, ...]
    protocol: int

    @property
    def tally(self) -> Counter[ComparisonOutcome]:
        """Wins, ties and losses of the first side."""
        return Counter(line.outcome for line in self.lines if line.outcome)

    def to_text(self, *, width: int = 120) -> str:
        """A table for a terminal, with win / tie / loss below."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        out = io.StringIO()
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title in ("Where", "First", "Second", "Pairs", "Difference", "p (Holm)", "Result", "Pairs for 80%"):
            table.add_column(title, justify="left" if title in ("Where", "Result") else "right")
        for line in self.lines:
            low, high = line.interval
            table.add_row(
                f"{line.dataset} · {line.split} · {line.setting}",
                percent(line.mean_first),
                percent(line.mean_second),
                f"{line.pairs}" + (f" (+{line.unpaired} unpaired)" if line.unpaired else ""),
                f"{points(line.difference)} \\[{points(low)}, {points(high)}]",
                f"{line.p_corrected:.2g}",
                line.outcome or "preview",
                str(line.seeds or "–"),
            )
        console = Console(file=out, width=width, color_system=None)
        console.print(
            f"{self.lines[0].first} against {self.lines[0].second}, paired by (split index, seed), "
            f"{protocol_text(self.protocol)}",
            markup=False,
        )
        console.print(table)
        counts = ", ".join(f"{self.tally[result]} {result}" for result in ("win", "tie", "loss"))
        for line in self.lines:
            for name, runs in ((line.first, line.flat_first), (line.second, line.flat_second)):
                if runs is not None and (runs.flat or runs.flat_teacher):
                    where = f"{name} on {line.dataset}, {line.split}, {line.setting}"
                    counted = f"{runs.flat} of {runs.runs} runs flat, {runs.flat_teacher} taught by a flat teacher"
                    console.print(f"{where}: {counted}", markup=False)
        open_lines = sum(line.preview for line in self.lines)
        counts += f", {open_lines} preview (fewer than {MIN_RUNS} pairs, or runs unpaired)" if open_lines else ""
        console.print(f"{counts}; below 0.2 points is a tie. Intervals: 95% bootstrap of the mean difference.")
        return "\n".join(text.rstrip() for text in out.getvalue().splitlines()) + "\n"


def compare(first: Sequence[Record], second: Sequence[Record], *, test_train_ratio: float | None = None) -> Comparison:
    """Pair two methods by (index, seed) wherever both have a record.

    Rows of one protocol version are compared: the one that both have in most places, of equal ones the newest. Splits
    that are for audits only take no part.

    Args:
        first, second: one record per (data set, split id, training setting) on each side.
        test_train_ratio: test over training items of one split; adds the Nadeau-Bengio corrected t for overlapping
            random splits and folds.

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
    statistics = paired([pair.gains for pair in pairs_of_records])
    lines = (_line(pair, of, test_train_ratio) for pair, of in zip(pairs_of_records, statistics, strict=True))
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

    @property
    def gains(self) -> list[float]:
        return [self.first.scores[pair] - self.second.scores[pair] for pair in self.pairs]


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
    return _PairedRecords(one.dataset, one.split, setting, first, second, pairs)


def _line(pair: _PairedRecords, of: Paired, ratio: float | None) -> PairedComparison:
    gains, pairs = pair.gains, pair.pairs
    mean, std = mean_std(gains)
    line = PairedComparison(
        dataset=pair.dataset,
        split=pair.split,
        setting=pair.setting,
        first=pair.first.name,
        second=pair.second.name,
        pairs=len(pairs),
        unpaired=len(pair.first.planned | pair.second.planned) - len(pairs),
        mean_first=sum(pair.first.scores[run] for run in pairs) / len(pairs),
        mean_second=sum(pair.second.scores[run] for run in pairs) / len(pairs),
        difference=of.difference,
        std=std,
        interval=of.interval,
        p_value=of.p_alone,
        p_corrected=of.p_value,
        t_test=nadeau_bengio(gains, ratio) if ratio is not None and len(pairs) > 1 else None,
        outcome=None,
        seeds=seeds_needed(mean, std) if std is not None and mean != 0.0 else None,
        flat_first=FlatRuns.of(pair.first),
        flat_second=FlatRuns.of(pair.second),
    )
    return line if line.preview else replace(line, outcome=outcome(of.difference, of.p_value))
