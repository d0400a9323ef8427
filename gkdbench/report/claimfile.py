"""The content of a page of claims, read from TOML: rows, claims, figures. Strict at the boundary."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gkdbench.errors import UserError, nearest
from gkdbench.records.key import TRIAL
from gkdbench.records.schema import Record, TomlModel
from gkdbench.report.entries import entries, teaching_roles
from gkdbench.report.model import Aggregate, TableRow
from gkdbench.report.protocols import best_protocol, follows_protocol, of_protocol

ClaimKind = Literal["better", "steadier", "consistent", "sooner"]


class Side(TomlModel):
    """Which row of a place takes part.

    Args:
        name: as the page calls it.
        method, variant: of the record. config: fields it must have; tables are compared key by key.
        places: "<data set> <split id>" -> more such fields there.
        later: more such fields in records of protocol 2 and later, where a page's rows gained an option.
        off: fields that it must lack, or have as false or 0.
        teacher: the same for its teachers' configuration; None: any.
        aggregate: which row of a record with several models.
        tier: published settings, or tuned ones; the trials that found those take no part.
        trials: of tuned settings; None: any number. later_trials: the same in records of protocol 2 and later.
        selection: rule of selection, for studies of it; None: that of the record's protocol.
    """

    name: str
    method: str
    variant: str = "corrected"
    config: dict[str, Any] = {}
    places: dict[str, dict[str, Any]] = {}
    later: dict[str, Any] = {}
    off: list[str] = []
    teacher: dict[str, Any] | None = None
    aggregate: Aggregate = "single"
    tier: Literal["published", "tuned"] = "published"
    trials: int | None = None
    later_trials: int | None = None
    selection: str | None = None

    def find(self, records: Sequence[Record], dataset: str, split: str, setting: str) -> TableRow | None:
        """Its row in a place, None when no record has it. Splits that are for audits only have no row.

        Args:
            records: of one protocol version, see `of_one_protocol`.

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
        taught = [info.config for info in teaching_roles(record.teachers).values()]
        return (
            (record.method, record.variant, record.tier) == (self.method, self.variant, self.tier)
            and record.tuning != TRIAL
            and not record.audit_only
            and (follows_protocol(record) if self.selection is None else record.selection == self.selection)
            and self.trials in (None, record.trials)
            and (record.protocol_version < 2 or self.later_trials in (None, record.trials))
            and _within(self.config, record.config)
            and not any(record.config.get(name) for name in self.off)
            and (record.protocol_version < 2 or _within(self.later, record.config))
            and _within(self.places.get(f"{record.dataset} {record.split}", {}), record.config)
            and (self.teacher is None or any(_within(self.teacher, config) for config in taught))
        )


def of_one_protocol(
    sides: Sequence[Side], records: Sequence[Record], places: Sequence[tuple[str, str, str]]
) -> tuple[list[Record], int | None]:
    """Those of `records` that were made under one protocol, and its version: the one under which most rows of `sides`
    in `places` (data set, split id, setting) are complete, of equal ones the newest.
    """

    def complete(version: int) -> tuple[int, ...]:
        own = of_protocol(records, version)
        rows = (side.find(own, *place) for side in sides for place in places)
        return (sum(row is not None and row.complete for row in rows),)

    versions = {record.protocol_version for record in records}
    version = next(iter(versions)) if len(versions) == 1 else best_protocol(versions, complete)
    return of_protocol(records, version), version


class ClaimPart(TomlModel):
    """Where a claim is tested, and on which rows.

    Args:
        candidate, against: names of the page's rows.
        datasets, splits: every pair of these is a place. places: "<data set> <split id>", for sets that share no split.
        settings: of every place; those that its split lacks are left out.
    """

    candidate: str
    against: Annotated[list[str], Field(min_length=1)]
    datasets: list[str] = []
    splits: list[str] = []
    places: list[Annotated[str, Field(pattern=r"^\S+ \S+$")]] = []
    settings: Annotated[list[str], Field(min_length=1)]

    @property
    def where(self) -> list[tuple[str, str]]:
        """Its (data set, split id)."""
        named = [place.split(" ") for place in self.places]
        return [*itertools.product(self.datasets, self.splits), *((dataset, split) for dataset, split in named)]

    @model_validator(mode="after")
    def _is_tested_somewhere(self) -> ClaimPart:
        if bool(self.datasets) != bool(self.splits) or not self.where:
            says = getattr(self, "says", f"a part with {self.candidate!r}")
            raise ValueError(f"{says!r} is tested nowhere: expected datasets and splits, or places, got neither")
        return self


class ClaimTest(ClaimPart):
    """One claim and how it is tested.

    Args:
        says: the claim, in our words. source: where it is made. reads: how the test represents it.
        test: ``better``: higher scores; ``steadier``: smaller deviations from its own median run; ``consistent``: a
            smaller worst regret over the places; ``sooner``: a smaller share of the epochs after which the rival had
            its best validation score, until that score is reached (peer by peer; never reached counts as twice as
            many).
        part: further places that answer the same claim by rows of their own; rivals answer by their position in
            `against`.
    """

    says: str
    source: str
    reads: str
    test: ClaimKind = "better"
    part: list[ClaimPart] = []

    @property
    def parts(self) -> list[ClaimPart]:
        """The claim's own places, and those of its further parts."""
        return [self, *self.part]

    @model_validator(mode="after")
    def _parts_have_its_rivals(self) -> ClaimTest:
        for part in self.part:
            if len(part.against) != len(self.against):
                raise ValueError(
                    f"{self.says!r}: expected {len(self.against)} rivals in every part, got {len(part.against)}; "
                    "rivals answer by their position"
                )
        return self


class _Placed(TomlModel):
    """What a figure shows, and where.

    Args:
        says: its heading. reads: what the numbers mean.
        rows: names of the page's rows.
        dataset, split, setting: the place.
    """

    says: str
    reads: str
    rows: Annotated[list[str], Field(min_length=1)]
    dataset: str
    split: str
    setting: str


def placed(figure: _Placed, sides: Mapping[str, Side], records: Sequence[Record]) -> tuple[list[Record], int | None]:
    """The records of the one protocol that `figure` shows, and its version."""
    place = (figure.dataset, figure.split, figure.setting)
    return of_one_protocol([sides[name] for name in figure.rows], records, [place])


class _Shown(_Placed):
    """A figure of readings.

    Args:
        readings: name in the records -> as the figure calls it.
    """

    readings: Annotated[dict[str, str], Field(min_length=1)]


class Figure(_Shown):
    """Scalars of runs next to each other: numbers that methods leave in ``extra``.

    Args:
        before: reading -> its value before training, drawn as a ring.
        ranked: the readings of a run are shown largest first, whatever their names: the numbers of experts mean nothing
            from run to run.
    """

    before: dict[str, str] = {}
    ranked: bool = False


class CurveFigure(_Shown):
    """Readings over epochs, from side-cars: means over runs with a band.

    Readings are names of a run's arrays of one value per report (``terms/loss``, ``peer0/val/curve``); a name with a
    ``*`` is the mean of all that fit.

    Args:
        per: a panel for each row, its lines the readings, or a panel for each reading, its lines the rows.
        unit: what the numbers are.
    """

    per: Literal["row", "reading"] = "row"
    unit: str = ""


class SweepFigure(_Placed):
    """What a corruption of the inputs, after training, does to rows; the first row is compared with the others.

    Args:
        kind: of corruption.
    """

    kind: Literal["feature_noise", "edge_drop"]


class Quoted(TomlModel):
    """Published numbers that the page repeats, and why nothing here is compared with them.

    Args:
        methods: as ``published.json`` names them. why: the reason.
    """

    methods: Annotated[list[str], Field(min_length=1)]
    why: str


class ClaimPage(TomlModel):
    """One page of claims: what stands around the tests is text, everything else is computed.

    Args:
        study: the study whose records it reads; none: those of the board.
    """

    title: str
    intro: str
    outro: str = ""
    study: str = ""
    row: dict[str, Side]
    claim: Annotated[list[ClaimTest], Field(min_length=1)]
    figure: list[Figure] = []
    curve: list[CurveFigure] = []
    sweep: list[SweepFigure] = []
    quoted: list[Quoted] = []

    @model_validator(mode="after")
    def _rows_are_there(self) -> ClaimPage:
        parts = [part for claim in self.claim for part in claim.parts]
        used = [name for part in parts for name in (part.candidate, *part.against)]
        for name in [*used, *(name for shown in (*self.figure, *self.curve, *self.sweep) for name in shown.rows)]:
            if name not in self.row:
                raise ValueError(f"no row {name!r}; {nearest(name, self.row)}")
        return self


def _within(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(
        key in found and (_within(value, found[key]) if isinstance(value, dict) else found[key] == value)
        for key, value in expected.items()
    )
