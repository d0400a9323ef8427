"""Checks published numbers against their side-cars and the data; nothing in a record is trusted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gkdbench.data.datasets import MissingData
from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.errors import UserError
from gkdbench.execute.selected_epochs import TOLERANCE, selection_problems
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.scoring import arrays_sha256, rescore
from gkdbench.protocol.sweeps import resweep
from gkdbench.records.claims import undisturbed
from gkdbench.records.key import base_seed, identity_of
from gkdbench.records.schema import PROTOCOL_VERSION, ModelResult, Record, Row
from gkdbench.records.sidecar import SidecarArrays, arrays_of, row_arrays
from gkdbench.records.store import GroupAddress, checked_sidecar, load_record, record_paths, rows_sha256
from gkdbench.training.registry import METHODS

PROTOCOLS = range(1, PROTOCOL_VERSION + 1)
"""Protocol versions whose keys and rules are known."""


@dataclass
class VerifyReport:
    """What was found.

    Args:
        records, scores: how many were looked at, how many scores were computed again.
        problems: one line each, beginning with the record's path.
        not_checked: what could not be computed again, and why.
    """

    records: int = 0
    scores: int = 0
    problems: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: everything re-computes; 1: something does not; 3: nothing is wrong, and something was not checked."""
        return 1 if self.problems else 3 if self.not_checked else 0


@dataclass(frozen=True, eq=False)
class _Run:
    path: Path
    record: Record
    row: Row
    arrays: SidecarArrays

    def __str__(self) -> str:
        return f"{self.path}: row {self.row.index}-{self.row.seed}"


def verify(path: str | Path, *, data: str | Path | None = None) -> VerifyReport:
    """Check every record below `path` (or the one record `path`).

    Schema, key, name, side-car hash, hash of every row's arrays, every score from predictions and labels, those of
    sweeps included, every audit and every selected epoch from its curves, one set of weights per teacher in all rows
    that name it.

    Args:
        data: folder of raw files; default: ``$GKDBENCH_DATA``.

    Raises:
        UserError: there is no record.
    """
    report = VerifyReport()
    folder = Path(path)
    paths = record_paths(folder, studies=True)
    if not paths:
        raise UserError(
            f"{folder}: expected a record, or a folder that `gkdbench run --out` wrote, got no records below it"
        )
    runs: list[_Run] = []
    for found in paths:
        report.records += 1
        try:
            with undisturbed(found):
                runs += _check_record(found, load_record(found), report)
        except FileNotFoundError:  # gone since it was listed
            report.records -= 1
        except UserError as error:
            report.problems.append(str(error))
    _check_teachers(runs, report)
    _check_scores(runs, data, report)
    return report


def _check_record(path: Path, record: Record, report: VerifyReport) -> list[_Run]:
    """Everything that needs neither data nor other records."""
    for problem in _identity_problems(path, record):
        report.problems.append(f"{path}: {problem}")
    arrays: SidecarArrays = {}
    try:
        arrays = _sidecar(path, record)
    except UserError as error:
        report.problems.append(f"{path}: {error}")
        return []
    runs = []
    for row in record.rows:
        own = row_arrays(arrays, row.index, row.seed)
        kept = record.predictions is None or record.predictions.kept
        if row.predictions_sha256 is not None and kept and arrays_sha256(own) != row.predictions_sha256:
            report.problems.append(f"{path}: row {row.index}-{row.seed}: its arrays do not have the hash of the record")
        elif row.status == "ok" and not kept:
            report.not_checked.append(f"{path}: row {row.index}-{row.seed}: predictions not kept; `{row.command}`")
        elif row.status == "ok":
            runs.append(_Run(path, record, row, own))
    return runs


def _identity_problems(path: Path, record: Record) -> Iterator[str]:
    if record.protocol_version not in PROTOCOLS:
        known = ", ".join(map(str, PROTOCOLS))
        yield f"protocol_version: expected one of {known}, got {record.protocol_version}; update gkdbench"
    elif identity_of(record).key != record.key:
        yield f"key {record.key[:12]} is not that of its own fields ({identity_of(record).key[:12]})"
    if record.protocol_version == 1 and record.selection != "first":  # the keys of protocol 1 do not cover it
        yield f"selection: expected first, the rule of protocol 1, got {record.selection}"
    family = SPLIT_FAMILIES.get(record.split)
    if family is not None and family.audit_only != record.audit_only:
        yield f"audit_only: expected {family.audit_only} on {record.split}, got {record.audit_only}"
    if record.revisions.get(record.method) != record.revision:
        yield f"revision {record.revision} is not the one that its key covers"
    if path.name != GroupAddress.of(record).path.name:
        yield f"file name: expected {GroupAddress.of(record).path.name}, got {path.name}"
    at = [(row.index, row.seed) for row in record.rows]
    if at != sorted(set(at)):
        yield "rows are not sorted by (index, seed), or one is there twice"
    for row in record.rows:
        if (row.status == "ok") != bool(row.models):
            yield f"row {row.index}-{row.seed} has status {row.status} and {len(row.models)} models"
        if row.status == "ok" and row.predictions_sha256 is None:
            yield f"row {row.index}-{row.seed} has scores without predictions"


def _sidecar(path: Path, record: Record) -> SidecarArrays:
    if record.predictions is None:
        if any(row.predictions_sha256 for row in record.rows):
            raise UserError("expected a side-car for its rows with predictions, got none")
        return {}
    if not record.predictions.kept:
        if rows_sha256(record.rows) != record.predictions.sha256:
            raise UserError("expected the side-car's hash to be that of its rows' hashes, got another")
        return {}
    return arrays_of(checked_sidecar(path, record), path.with_suffix(".npz"))


def _check_teachers(runs: list[_Run], report: VerifyReport) -> None:
    """Students of one teacher cell learned from the same weights: those of the teacher's row, where it is stored."""
    weights: dict[tuple[str, int, int], dict[str, Path]] = defaultdict(dict)
    for run in runs:  # further models of a run have its seed: an ensemble names them all
        at = (run.record.key, run.row.index, base_seed(run.row.seed))
        weights[at].setdefault(run.row.models[0].weights_sha256, run.path)
    for run in runs:
        for role, teacher in run.record.teachers.items():
            used = run.row.teachers.get(role)
            at = (teacher.key, run.row.index, base_seed(run.row.seed))
            if used is None:
                report.problems.append(f"{run} does not name the {role} that it used")
            elif used not in weights.setdefault(at, {used: run.path}):
                other = next(iter(weights[at].values()))
                report.problems.append(f"{run}: its {role} has weights {used[:12]}, in {other} it has other ones")


def _check_scores(runs: list[_Run], data: str | Path | None, report: VerifyReport) -> None:
    by_problem: dict[tuple[str, str, int], list[_Run]] = defaultdict(list)
    for run in runs:
        by_problem[run.record.dataset, run.record.split, run.row.index].append(run)
    for name, same in sorted(by_problem.items()):
        try:
            split_task = prepare_named(*name, data=data)
        except MissingData as error:
            why = str(error).splitlines()[0]
            report.not_checked += [f"{run}: data absent ({why})" for run in same]
            continue
        evaluation_graphs = make_evaluation_graphs(split_task)
        live = [scored_set.column for scored_set in evaluation_graphs.scored_sets if scored_set.live]
        for run in same:
            own = _is_own(run.record.method)
            for text in _data_problems(run, split_task):
                report.problems.append(f"{run}: {text}")
            for model in run.row.models:
                found = [
                    *rescore(split_task, evaluation_graphs, run.arrays, model),
                    *_audit_problems(run.arrays, model),
                    *selection_problems(run.record, run.arrays, model, live, own_method=own),
                ]
                report.scores += len(model.scores) + 1
                report.problems += [f"{run}: {text}" for text in found]
            report.scores += sum(len(of) for step in run.row.sweeps for of in step.scores.values())
            found = list(resweep(split_task, evaluation_graphs, run.arrays, run.row, run.record.sweeps))
            report.problems += [f"{run}: {text}" for text in found]


def _is_own(method: str) -> bool:
    entry = METHODS.entries().get(method)
    return entry is not None and entry.target.startswith("gkdbench.")


def _data_problems(run: _Run, split_task: SplitTask) -> Iterator[str]:
    if split_task.task.content_hash != run.record.data.sha256:
        yield f"the available data have another content ({split_task.task.content_hash[:12]}) than the record's"
    if split_task.split.hash != run.row.split_sha256:
        made, stored = split_task.split.hash[:12], run.row.split_sha256[:12]
        yield f"the split made from them ({made}) is not the record's ({stored})"


def _audit_problems(arrays: SidecarArrays, model: ModelResult) -> Iterator[str]:
    """Peak, gap and final score against the stored curves."""
    for column, audit in model.audit.items():
        curve = arrays.get(f"{model.name}/{column}/curve")
        if curve is None or not len(curve):
            yield f"{model.name}: an audit of {column} without its curve"
            continue
        selected = model.scores[column].value
        wanted = {"peak": max(float(curve.max()), selected), "final": float(curve[-1])}
        wanted["gap"] = wanted["peak"] - selected
        for what, value in wanted.items():
            stored = getattr(audit, what)
            if not math.isclose(stored, value, rel_tol=0, abs_tol=TOLERANCE):
                yield f"{model.name}: audit {what} of {column} is {stored:.6f}, its curve has {value:.6f}"
