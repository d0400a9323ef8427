"""The board as plain data: what every renderer reads and none of them computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from gkdbench.controls import Control
from gkdbench.records.schema import PROTOCOL_VERSION, DataInfo, Provenance
from gkdbench.report.cost import RowCost
from gkdbench.report.protocols import protocol_text
from gkdbench.report.published import PublishedVerdict
from gkdbench.report.statistics import MIN_RUNS, ComparisonOutcome, Estimate, Rank, RankTest, mean_std

SectionKind = Literal["solo", "taught", "release's teacher", "as released"]
Aggregate = Literal["single", "mean of peers", "best on validation", "ensemble"]
FLAT, FLAT_TEACHER = "flat", "flat teacher"
"""Flags of a run (docs/protocol.md, section 4.1): one of its models hardly tells classes apart on its own training
items; one of its teachers does not."""


@dataclass(frozen=True, slots=True)
class RowRun:
    """One (split index, seed) of an entry; scores in [0, 1], None when the run produced none."""

    index: int
    seed: int
    status: str
    value: float | None
    peak: float | None
    reason: str | None
    command: str
    flags: tuple[str, ...]
    epochs: int = 0  # that were reported; 1: nothing was trained (an ensemble of finished models), nothing was chosen

    @property
    def pair(self) -> tuple[int, int]:
        return self.index, self.seed


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """An entry against the controls of no higher cost; differences in [-1, 1].

    Attributes:
        control: the one that leaves the smallest difference. estimate: of that difference.
        controls: names of all. beats_all: better than every one. own_cost: one of them costs what the entry costs.
        lacking: controls that the entry has on other data sets, and that were not run here.
    """

    control: str
    estimate: Estimate
    controls: frozenset[str] = frozenset()
    beats_all: bool = False
    own_cost: bool = False
    lacking: tuple[str, ...] = ()

    @property
    def outcome(self) -> ComparisonOutcome | None:
        """None where nothing is claimed."""
        return self.estimate.outcome

    @property
    def said(self) -> str:
        """The outcome in words, and what a better row lacks to be bold."""
        if not self.estimate.better:
            return self.estimate.said
        if not self.beats_all:
            return f"{self.estimate.said}, but not than every control"
        if not self.own_cost:
            return f"{self.estimate.said}, but no control is of its own cost"
        missing = f", but not run here: {', '.join(self.lacking)}" if self.lacking else ""
        return f"{self.estimate.said}{missing}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table: a record's student, or its peers under one aggregate.

    A mean exists only when every planned run has a score: an incomplete row is never averaged. Parameters and
    multiply-adds of one peer of several are those of the dearest peer.
    """

    key: str  # of the record
    method: str
    label: str
    variant: str
    teacher: str | None
    aggregate: Aggregate
    needs: str
    parameters: int | None
    macs: int | None
    planned: frozenset[tuple[int, int]]
    runs: tuple[RowRun, ...]
    control: Control | None = None  # the kind of control that it is, see `gkdbench.controls`; None: none
    verdicts: tuple[PublishedVerdict, ...] = ()
    training_macs: int | None = None  # an inference an epoch of every model trained for it; None: not known, or taught
    train_j: float | None = None  # mean over the runs; None: a run has no reading
    flatness_known: bool = False  # whether its runs say which models are flat; those of protocol 1 do not
    cost: RowCost | None = None  # of its training and answers; None: not measured
    versus: ControlComparison | None = None
    versus_training: ControlComparison | None = None  # of rows of peers
    bold: bool = False

    @property
    def name(self) -> str:
        return self.label if self.aggregate == "single" else f"{self.label}, {self.aggregate}"

    @property
    def scores(self) -> dict[tuple[int, int], float]:
        """(index, seed) -> score of the runs that have one."""
        return {run.pair: run.value for run in self.runs if run.value is not None}

    @property
    def done(self) -> int:
        return len(self.scores)

    @property
    def complete(self) -> bool:
        return bool(self.planned) and self.planned <= self.scores.keys()

    @property
    def preview(self) -> bool:
        """Complete but below the protocol's minimum of runs: never printed without its mark."""
        return self.complete and self.done < MIN_RUNS

    @property
    def mean_std(self) -> tuple[float, float | None] | None:
        """Mean and ddof=1 spread over the runs, or None when the row is incomplete."""
        return mean_std(list(self.scores.values())) if self.complete else None

    @property
    def gap(self) -> float | None:
        """Mean of peak - selected over the runs; None when a run lacks either, or had one epoch to choose from."""
        if any(run.epochs == 1 for run in self.runs):
            return None
        gaps = [run.peak - run.value for run in self.runs if run.peak is not None and run.value is not None]
        return sum(gaps) / len(gaps) if self.complete and len(gaps) == self.done else None

    @property
    def flags(self) -> Counter[str]:
        """What a reader must know of runs that count all the same ("collapsed") -> of how many."""
        return Counter(flag for run in self.runs if run.value is not None for flag in run.flags)

    @property
    def flat(self) -> int | None:
        """Runs with a score in which a model is flat; None where that was not recorded."""
        return self.flags[FLAT] if self.flatness_known else None

    @property
    def flat_teacher(self) -> int | None:
        """Runs with a score whose teacher is flat; None where that was not recorded."""
        return self.flags[FLAT_TEACHER] if self.flatness_known else None

    @property
    def statuses(self) -> Counter[str]:
        return Counter(run.status for run in self.runs)


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that may be compared with each other: one teacher, one variant."""

    kind: SectionKind
    title: str
    note: str
    entries: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One (data set, split id, reported setting, protocol), and one kind of run (threads, device, tier, ...)."""

    dataset: str
    split: str
    setting: str
    metric: str
    data: DataInfo
    notes: tuple[str, ...]  # what sets this table apart from its twins, or from that of published settings
    sections: tuple[Section, ...]
    tier: str = "published"
    protocol: int = PROTOCOL_VERSION
    remarks: tuple[str, ...] = ()  # what a reader must know of the split: audit only, for replication

    @property
    def heading(self) -> list[str]:
        """Split id, reported setting, protocol, and what sets it apart."""
        return [self.split, self.setting, protocol_text(self.protocol), *self.notes]

    @property
    def entries(self) -> list[TableRow]:
        return [entry for section in self.sections for entry in section.entries]


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One method over the data sets of a summary, or one of its options under it.

    Attributes:
        entries: one per data set, None where it did not run. sizes: of its model there, "" where all have the same.
        rank: None: not complete on every data set of the ranks, or an option.
        tally: outcomes against the strongest control of each table.
        parent: the row under which it folds out; None: a row of its own.
    """

    name: str
    entries: tuple[TableRow | None, ...]
    sizes: tuple[str, ...]
    rank: Rank | None
    tally: Counter[ComparisonOutcome]
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows trained alone, and those of one standard teacher, of one (split id, setting, protocol).

    Attributes:
        title: of the taught section, or of the rows trained alone when nothing was taught.
        rank_sets: the data sets over which rows are ranked. test: whether the ranks differ.
        said: over which sets how many rows are ranked, in words.
    """

    split: str
    setting: str
    title: str
    datasets: tuple[str, ...]
    rows: tuple[SummaryRow, ...]
    protocol: int = PROTOCOL_VERSION
    rank_sets: tuple[str, ...] = ()
    test: RankTest | None = None
    said: str = ""

    @property
    def heading(self) -> list[str]:
        """Split id, reported setting, protocol, and whose rows they are."""
        return [self.split, self.setting, protocol_text(self.protocol), self.title]


@dataclass(frozen=True, slots=True)
class Expected:
    """A group of runs of a plan."""

    key: str
    label: str
    dataset: str
    split: str
    setting: str  # what training may see
    runs: frozenset[tuple[int, int]]
    teacher: str | None = None


@dataclass(frozen=True, slots=True)
class MissingRuns:
    """Planned runs that no record holds."""

    expected: Expected
    runs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that did not end well, with the command that repeats it."""

    dataset: str
    split: str
    label: str
    index: int
    seed: int
    status: str
    phase: str | None
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that a report shows.

    `mixed` has a line for each record whose rows were made by more than one commit, torch or processor.
    """

    tables: tuple[Table, ...]
    summaries: tuple[Summary, ...] = ()
    failures: tuple[FailedRun, ...] = ()
    missing: tuple[MissingRuns, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    mixed: tuple[str, ...] = ()
    protocol_versions: tuple[int, ...] = ()
    records: int = 0
    runs: int = 0

    @property
    def datasets(self) -> dict[str, list[Table]]:
        """Columns per data set, in order."""
        found: dict[str, list[Table]] = {}
        for table in self.tables:
            found.setdefault(table.dataset, []).append(table)
        return found

    @property
    def compared(self) -> list[tuple[Table, TableRow, PublishedVerdict]]:
        """Every comparison with a publication that has a verdict other than "not comparable"."""
        return [
            (table, entry, verdict)
            for table in self.tables
            for entry in table.entries
            for verdict in entry.verdicts
            if verdict.status != "not comparable"
        ]
