"""From a record to the rows of one reported setting: the student, or the peers under each aggregate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gkdbench.errors import UserError
from gkdbench.records.key import reported
from gkdbench.records.schema import ModelResult, Record, Row
from gkdbench.records.selection import best_of
from gkdbench.report.model import Aggregate, RowRun, TableRow
from gkdbench.report.published import verdicts

ENSEMBLE = "ensemble"  # name of the model that averages the peers
Shown = TypeVar("Shown")
Pick = Callable[[Sequence[ModelResult]], list[ModelResult]]


def entries(record: Record, setting: str, planned: frozenset[tuple[int, int]] | None = None) -> list[TableRow]:
    """The rows of `record` in one reported setting.

    One model gives one row. Several peers give their mean and the best on validation, and the ensemble, where there is
    one, a row of its own; the best peer on test is never formed (docs/protocol.md, section 4.3).

    Args:
        record: a group of runs.
        setting: reported setting, one of ``record.columns``.
        planned: the (index, seed) pairs that were requested, in addition to those of the record's rows.

    Raises:
        UserError: a run is stored twice.
    """
    rows = [row for row in record.rows if reported(row.seed)]
    pairs = [(row.index, row.seed) for row in rows]
    twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
    if twice:
        raise UserError(f"record {record.key[:12]} ({record.label}) stores runs {twice} twice; collect it again")
    wanted = frozenset(pairs) | frozenset(pair for pair in planned or () if reported(pair[1]))
    record = record.model_copy(update={"rows": rows})
    names = list(dict.fromkeys(model.name for row in rows for model in row.models))
    peers = [name for name in names if name != ENSEMBLE] or [ENSEMBLE]
    if len(peers) < 2:
        found = [_entry(record, setting, "single", _named(peers), wanted)]
    else:
        found = [
            _entry(record, setting, "mean of peers", _named(peers), wanted),
            _entry(record, setting, "best on validation", _best(peers), wanted),
        ]
        parameters, macs = _most_expensive_model([model for row in rows for model in row.models if model.name in peers])
        found = [replace(entry, parameters=parameters, macs=macs) for entry in found]
    if ENSEMBLE in names and peers != [ENSEMBLE]:
        found.append(_entry(record, setting, "ensemble", _named([ENSEMBLE]), wanted))
    return found


def taught_by(record: Record) -> str:
    """Labels of the record's teachers, in the order of their roles; empty when it was trained alone."""
    return ", ".join(info.label for _, info in sorted(teaching_roles(record.teachers).items()))


def teaching_roles(teachers: Mapping[str, Shown]) -> dict[str, Shown]:
    """The roles that taught; an ensemble's members are not teachers."""
    return {role: value for role, value in teachers.items() if not role.startswith("member")}


def _named(names: Sequence[str]) -> Pick:
    """All models of `names`, or none when one is missing: peers are averaged together or not at all."""

    def pick(models: Sequence[ModelResult]) -> list[ModelResult]:
        chosen = [model for model in models if model.name in names]
        return chosen if len(chosen) == len(names) else []

    return pick


def _best(names: Sequence[str]) -> Pick:
    """The peer with the highest validation score, of equals the one with the smallest validation loss."""

    def pick(models: Sequence[ModelResult]) -> list[ModelResult]:
        peers = _named(names)(models)
        return [peers[best_of((model.val, model.val_loss) for model in peers)]] if peers else []

    return pick


def _entry(
    record: Record, setting: str, aggregate: Aggregate, pick: Pick, planned: frozenset[tuple[int, int]]
) -> TableRow:
    chosen = [pick(row.models) for row in record.rows]
    runs = tuple(_run(row, models, setting) for row, models in zip(record.rows, chosen, strict=True))
    flat = [model for models in chosen for model in models]
    entry = TableRow(
        key=record.key,
        method=record.method,
        label=record.label,
        variant=record.variant,
        teacher=taught_by(record) or None,
        aggregate=aggregate,
        needs=flat[0].needs if flat else "",
        parameters=_only({model.parameters for model in flat}),
        macs=_only({model.macs for model in flat}),
        planned=planned,
        runs=runs,
        control=record.control,
        training_macs=_training_macs(record),
        train_j=_mean_energy(record),
        flatness_known=bool(flat) and all(model.val_loss is not None for model in flat),
    )
    if aggregate not in ("single", "mean of peers"):
        return entry
    scored = [run for run in runs if run.value is not None]
    found = verdicts(
        record,
        setting,
        [run.value for run in scored if run.value is not None],
        [run.peak for run in scored if run.peak is not None],
        complete=entry.complete,
    )
    return replace(entry, verdicts=tuple(found))


def _run(row: Row, models: list[ModelResult], setting: str) -> RowRun:
    """One run; a failed run that left a score counts with it (docs/protocol.md, section 5)."""
    values = [model.scores[setting].value for model in models if setting in model.scores]
    peaks = [model.audit[setting].peak for model in models if setting in model.audit]
    return RowRun(
        index=row.index,
        seed=row.seed,
        status=row.status,
        value=sum(values) / len(values) if values and len(values) == len(models) else None,
        peak=sum(peaks) / len(peaks) if peaks and len(peaks) == len(models) else None,
        reason=row.reason,
        command=row.command,
        flags=tuple(row.flags),
        epochs=row.epochs,
    )


def _most_expensive_model(peers: Sequence[ModelResult]) -> tuple[int | None, int | None]:
    """(parameters, multiply-adds) that one of several peers has at most."""
    counted = [model.macs for model in peers if model.macs is not None]
    macs = max(counted, default=None) if len(counted) == len(peers) else None
    return max((model.parameters for model in peers), default=None), macs


def _training_macs(record: Record) -> int | None:
    """Of one inference of all models that a run trains (mean over runs), times the epochs that they may take."""
    members = [info.config for role, info in record.teachers.items() if role not in teaching_roles(record.teachers)]
    epochs = max((int(config["epochs"]) for config in [record.config, *members] if "epochs" in config), default=None)
    trained = [[model for model in row.models if model.name != ENSEMBLE] for row in record.rows if row.models]
    counted = [model.macs for models in trained for model in models if model.macs is not None]
    if teaching_roles(record.teachers) or epochs is None or not counted or len(counted) < sum(map(len, trained)):
        return None
    return round(epochs * sum(counted) / len(trained))


def _mean_energy(record: Record) -> float | None:
    read = [row.train_j for row in record.rows if row.train_j is not None]
    return sum(read) / len(read) if read and len(read) == len(record.rows) else None


def _only(values: set[int] | set[int | None]) -> int | None:
    """The one value of a set, None when runs differ or there is none."""
    return next(iter(values)) if len(values) == 1 else None
