"""Records to board: what may be in one table, in which section, and what may be called better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gkdbench.errors import UserError
from gkdbench.records.canonical import canonical_json
from gkdbench.records.key import TRIAL, reported
from gkdbench.records.measurement import Measurement
from gkdbench.records.origins import mixed_fields
from gkdbench.records.schema import Record, Row
from gkdbench.report.cost import CostIndex
from gkdbench.report.entries import entries, taught_by, teaching_roles
from gkdbench.report.loading import without_repeats
from gkdbench.report.model import Board, Expected, FailedRun, MissingRuns, Section, SectionKind, Table, TableRow
from gkdbench.report.naming import distinct_labels
from gkdbench.report.protocols import follows_protocol, remarks
from gkdbench.report.significance import against_controls, with_bold
from gkdbench.report.summary import summaries

RunPairs = frozenset[tuple[int, int]]
SETTINGS = ("tran", "ind", "prod", "coldstart", "graph")
NOT_FAILED = ("ok", "skipped")
SAID_ANYWAY = ("tier", "trials", "selection")
"""Conditions that a table names wherever they are not the usual ones, and not only next to a twin."""


def build(
    records: Sequence[Record],
    *,
    expected: Iterable[Expected] | None = None,
    measurements: Iterable[Measurement] = (),
) -> Board:
    """The board of `records`.

    A table is one (data set, split id, reported setting, protocol version), and says which protocol; the newest comes
    first. Records that differ in data hash, preprocessing, threads, device, tier, trials, audit interval or rule of
    selection never share one: each kind gets a table of its own, and a note names the difference. A swept record is in
    its table only if its counterpart without a sweep is absent. Where validation is the test part (audit only), nothing
    is compared.

    Args:
        records: groups of runs, any order; the same key twice is refused.
        expected: the runs of a plan; what is absent is listed, and rows short of it are incomplete.
        measurements: of cost, joined to the rows of their method, settings, data set and device class.

    Raises:
        UserError: two records of one key, a run stored twice, or runs of one table on different splits or teachers.
    """
    shown = (r for r in records if r.tuning != TRIAL and (not r.rows or any(reported(row.seed) for row in r.rows)))
    ordered = sorted(shown, key=lambda r: (r.dataset, r.split, r.variant, r.method, r.label, r.key))
    known: dict[str, Record] = {}
    for record in ordered:
        if record.key in known:
            raise UserError(
                f"two records of {record.label} on {record.dataset} have the key {record.key[:12]}; "
                f"collect them into one"
            )
        known[record.key] = record
    plan = {item.key: item for item in expected or ()}
    groups: dict[tuple[str, str, str, int], dict[str, list[Record]]] = {}
    for record in without_repeats(ordered):
        for setting in record.columns:
            kinds = groups.setdefault((record.dataset, record.split, setting, record.protocol_version), {})
            kinds.setdefault(canonical_json(conditions(record)), []).append(record)
    tables = []
    costs = CostIndex(measurements)
    for place in sorted(groups, key=lambda g: (g[0], g[1], _place(g[2]), -g[3])):
        kinds, setting = groups[place], place[2]
        for members in kinds.values():
            own = conditions(members[0])
            others = [conditions(other[0]) for other in kinds.values()]
            notes = _apart(own, [twin for twin in others if all(twin[name] == own[name] for name in SAID_ANYWAY)])
            if not follows_protocol(members[0]):
                notes = (f"selection {own['selection']}", *notes)
            if own["tier"] != "published":
                notes = (f"{own['tier']}, {own['trials']} trials", *notes)
            runs = {r.key: plan[r.key].runs for r in members if r.key in plan}
            tables.append(replace(table_of(members, setting, planned=runs, costs=costs), notes=notes))
    tables = with_bold(tables)
    return Board(
        tables=tuple(tables),
        summaries=tuple(summaries(tables)),
        failures=tuple(
            _failure(record, row) for record in ordered for row in record.rows if row.status not in NOT_FAILED
        ),
        missing=_missing(ordered, plan.values()),
        provenance=tuple({p.model_dump_json(exclude={"argv"}): p for r in ordered for p in r.provenances}.values()),
        mixed=tuple(
            f"{record.label} on {record.dataset}, {record.split}, {record.setting}: {', '.join(differ)}"
            for record in ordered
            if (differ := mixed_fields(record))
        ),
        protocol_versions=tuple(sorted({r.protocol_version for r in ordered})),
        records=len(ordered),
        runs=sum(len(r.rows) for r in ordered),
    )


def conditions(record: Record) -> dict[str, object]:
    """What all records of one table share, apart from data set, split id and setting."""
    return {
        "data": record.data.sha256,
        "preprocessing": dict(record.data.preprocessing),
        "metric": record.data.metric,
        "training": record.setting,
        "threads": record.threads,
        "device": record.device,
        "tier": record.tier,
        "trials": record.trials,
        "audit_every": record.audit_every,
        "protocol_version": record.protocol_version,
        "selection": record.selection,
    }


def table_of(
    records: Sequence[Record],
    setting: str,
    *,
    planned: dict[str, RunPairs] | None = None,
    costs: CostIndex | None = None,
) -> Table:
    """One table of records that may share it.

    Raises:
        UserError: no record, two data sets, two split ids, two kinds, different nodes under one split index, or
            different weights of one teacher under one (index, seed).
    """
    if not records:
        raise UserError("a table: expected at least one record, got none")
    first = records[0]
    for record in records:
        for what, ours, theirs in (
            ("data set", first.dataset, record.dataset),
            ("split id", first.split, record.split),
        ):
            if ours != theirs:
                raise UserError(f"one table cannot merge the {what}s {ours!r} and {theirs!r}; make one table for each")
        for name, value in conditions(first).items():
            if conditions(record)[name] != value:
                raise UserError(
                    f"{first.label} and {record.label} differ in {name}: {value} and {conditions(record)[name]}; "
                    f"rows of one table share it"
                )
    _same_splits(records)
    groups: dict[tuple[bool, bool, str], list[Record]] = {}
    for record in records:
        groups.setdefault(_section_of(record), []).append(record)
    rows = {key: _rows(groups[key], setting, planned or {}, costs or CostIndex(())) for key in sorted(groups)}
    solo = rows.get((False, False, ""), ())
    if not first.audit_only:
        rows = {key: tuple(against_controls(found, solo)) for key, found in rows.items()}
    return Table(
        dataset=first.dataset,
        split=first.split,
        setting=setting,
        metric=first.data.metric,
        data=first.data,
        notes=(),
        sections=tuple(_section(key, groups[key], found) for key, found in rows.items()),
        tier=first.tier,
        protocol=first.protocol_version,
        remarks=remarks(first),
    )


def _rows(
    records: Sequence[Record], setting: str, planned: dict[str, RunPairs], costs: CostIndex
) -> tuple[TableRow, ...]:
    """The rows of one section: best mean first, incomplete ones last, the rows of one record together."""
    labels = distinct_labels(records)
    named = [record.model_copy(update={"label": labels[record.key]}) for record in records]
    found = [
        [
            replace(entry, cost=costs.of(record, ensemble=entry.aggregate == "ensemble"))
            for entry in entries(record, setting, planned.get(record.key))
        ]
        for record in named
    ]
    found.sort(key=lambda rows: (-rows[0].mean_std[0] if rows[0].mean_std else 1.0, rows[0].name))
    return tuple(entry for rows in found for entry in rows)


def _section_of(record: Record) -> tuple[bool, bool, str]:
    """(as released, taught by a non-standard teacher, teacher keys); sorts in the order of display."""
    teachers = sorted(teaching_roles(record.teachers).items())
    special = any(info.config.get("recipe") or info.config.get("variant") == "as_released" for _, info in teachers)
    return record.variant == "as_released", special, " ".join(f"{role}={info.key}" for role, info in teachers)


def _section(key: tuple[bool, bool, str], records: Sequence[Record], rows: Sequence[TableRow]) -> Section:
    released, special, teachers = key
    _same_teachers(records)
    kind: SectionKind = "release's teacher" if special else "taught" if teachers else "solo"
    title = f"Taught by {taught_by(records[0])}" if teachers else "Trained alone"
    notes = ["a release's own teacher, not the standard one"] if special else []
    if released:
        kind = "as released"
        title = f"As released: {title[0].lower()}{title[1:]}"
        notes.append("the published code with its defects, to explain published numbers; never a headline")
    elif teachers and not records[0].audit_only and not any(row.versus for row in rows):
        notes.append(
            "nothing is compared: that takes two or more runs, shared with a complete control of equal or lower cost"
        )
    return Section(kind, title, "; ".join(notes), tuple(rows))


def _same_splits(records: Sequence[Record]) -> None:
    """Under one split index every record saw the same nodes."""
    seen: dict[int, tuple[str, Record]] = {}
    for record in records:
        for row in record.rows:
            digest, other = seen.setdefault(row.index, (row.split_sha256, record))
            if digest != row.split_sha256:
                raise UserError(
                    f"{other.label} ({other.key[:12]}) and {record.label} ({record.key[:12]}) have different nodes in "
                    f"split {row.index} of {record.split} on {record.dataset}; run the older one again"
                )


def _same_teachers(records: Sequence[Record]) -> None:
    """Under one (index, seed) every student of a section had the same teacher weights (docs/protocol.md, trap 28)."""
    seen: dict[tuple[int, int], tuple[dict[str, str], Record]] = {}
    for record in records:
        for row in record.rows:
            if taught := teaching_roles(row.teachers):
                weights, other = seen.setdefault((row.index, row.seed), (taught, record))
                if weights != taught:
                    raise UserError(
                        f"{other.label} and {record.label} on {record.dataset}, {record.split} had different teacher "
                        f"weights in run {(row.index, row.seed)}; run the older one again"
                    )


def _apart(own: dict[str, object], twins: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """The fields in which a table differs from its twins; empty when it has none."""
    notes = []
    for name, value in own.items():
        if any(twin[name] != value for twin in twins):
            shown = str(value)[:12] if name == "data" else canonical_json(value) if isinstance(value, dict) else value
            notes.append(f"{name.replace('_', ' ')} {shown}")
    return tuple(notes)


def _missing(records: Sequence[Record], plan: Iterable[Expected]) -> tuple[MissingRuns, ...]:
    have = {r.key: {(row.index, row.seed) for row in r.rows if row.status != "skipped"} for r in records}
    found = [MissingRuns(item, tuple(sorted(item.runs - have.get(item.key, set())))) for item in plan]
    return tuple(item for item in found if item.runs)


def _failure(record: Record, row: Row) -> FailedRun:
    return FailedRun(
        record.dataset,
        record.split,
        record.label,
        row.index,
        row.seed,
        row.status,
        row.phase,
        row.reason or "",
        row.command,
    )


def _place(setting: str) -> int:
    return SETTINGS.index(setting) if setting in SETTINGS else len(SETTINGS)
