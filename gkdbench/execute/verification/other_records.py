"""Records of one folder against each other: teachers, copies, and rows that are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.execute.grid import index_seed_pairs
from gkdbench.execute.suite import load_suite, suite_files
from gkdbench.execute.verification.findings import CheckedRow, Difference, VerifyReport
from gkdbench.execute.verification.row_fields import SIZED_BY_GRAPH
from gkdbench.protocol.flatness import FLAT, FLAT_TEACHER
from gkdbench.records.canonical import canonical_json
from gkdbench.records.key import MEMBER_STRIDE, TRIAL, base_seed, reported
from gkdbench.records.schema import Record

Records = Sequence[tuple[Path, Record]]
MAY_NOT_MATTER = frozenset({"variant", "recipe", "patience", "epochs"})
"""Settings that can differ though two trainings are the same to the bit."""


def check_teachers(runs: list[CheckedRow], report: VerifyReport) -> None:
    """Students of one teacher cell learned from the same weights: those of the teacher's row, where it is stored."""
    weights: dict[tuple[str, int, int], dict[str, Path]] = defaultdict(dict)
    for run in runs:  # further models of a run have its seed: an ensemble names them all
        at = (run.record.key, run.row.index, base_seed(run.row.seed))
        weights[at].setdefault(run.row.models[0].weights_sha256, run.path)
    for run in runs:
        for role in sorted(run.row.teachers.keys() - run.record.teachers.keys()):
            report.add(run.path, run.row, Difference(f"teachers.{role}", "a role of the record", role))
        for role, teacher in run.record.teachers.items():
            used = run.row.teachers.get(role)
            at = (teacher.key, run.row.index, base_seed(run.row.seed))
            if used is None:
                text = f"does not name the {role} that it used"
                report.add(run.path, run.row, Difference(f"teachers.{role}", "a hash", None, text))
            elif used not in weights.setdefault(at, {used: run.path}):
                other, where = next(iter(weights[at].items()))
                text = f"its {role} has weights {used[:12]}, in {where} it has other ones"
                report.add(run.path, run.row, Difference(f"teachers.{role}", other, used, text))


def teacher_differences(record: Record, by_key: Mapping[str, Record]) -> Iterator[Difference]:
    """What a record says of a teacher against the teacher's own record, where it is in the folder."""
    for role, named in record.teachers.items():
        teacher = by_key.get(named.key)
        if teacher is None:
            continue
        for name in ("method", "label", "config"):
            if getattr(named, name) != getattr(teacher, name):
                yield Difference(f"teachers.{role}.{name}", getattr(teacher, name), getattr(named, name))
        if (teacher.dataset, teacher.split) != (record.dataset, record.split):
            expected, got = (f"{of.dataset} on {of.split}" for of in (record, teacher))
            yield Difference(f"teachers.{role}.key", expected, got)


def check_sizes(records: Records, report: VerifyReport) -> None:
    """Parameters of a model against other splits of the same configuration and data, in this record and others: a split
    changes which items are seen, and a model's size only where the method chooses it by the graph. Only training again
    tells, so that this is not wrong by itself.
    """
    first: dict[str, tuple[int, str]] = {}
    for path, record in records:
        if record.method in SIZED_BY_GRAPH:
            continue
        content = [record.method, record.config, record.revisions, record.data.sha256, dict(record.data.preprocessing)]
        of = canonical_json([*content, record.protocol_version])
        for row in record.rows:
            for model in row.models:
                where = f"{path}: row {row.index}-{row.seed}"
                expected, other = first.setdefault(f"{model.name} {of}", (model.parameters, where))
                if model.parameters != expected:
                    text = (
                        f"models.{model.name}.parameters: expected {expected}, as in {other} with the same settings "
                        f"and data, got {model.parameters}; only --rerun tells which is true"
                    )
                    report.leave(path, row, Difference(f"models.{model.name}.parameters", text=text))


def check_flat_teachers(runs: list[CheckedRow], report: VerifyReport) -> None:
    """The flag of a student whose teacher is flat; only where the teachers' rows are in the folder."""
    flat = {(run.record.key, run.row.index, run.row.seed): FLAT in run.row.flags for run in runs}
    for run in runs:
        row = run.row
        at = [(teacher.key, row.index, base_seed(row.seed)) for teacher in run.record.teachers.values()]
        known = [flat[place] for place in at if place in flat]
        flagged = FLAT_TEACHER in row.flags
        told = any(known) if any(known) or len(known) == len(at) else flagged
        if run.record.protocol_version > 1 and told != flagged:
            text = f"flags: expected {'' if told else 'no '}{FLAT_TEACHER!r}, got {row.flags}"
            report.add(run.path, row, Difference("flags", FLAT_TEACHER if told else None, row.flags, text))


def check_copies(runs: list[CheckedRow], report: VerifyReport) -> None:
    """Equal predictions under two keys. Two trainings may be equal, so that this is not wrong by itself: only training
    again tells."""
    first: dict[str, CheckedRow] = {}
    for run in runs:
        other = first.setdefault(run.row.predictions_sha256 or "", run)
        if other.record.key != run.record.key and not _may_be_equal(other.record, run.record):
            text = f"predictions_sha256: the same predictions as {other}, under another key; only --rerun tells whose"
            report.leave(run.path, run.row, Difference("predictions_sha256", text=text))


def _may_be_equal(one: Record, other: Record) -> bool:
    """Whether two configurations are known to train alike: nothing but the rule of selection, or a setting that need
    not take effect, differs; or distillation has no weight."""
    if any(of.method == "kd" and of.config.get("alpha") == 0 for of in (one, other)):
        return True
    names = one.config.keys() | other.config.keys()
    differ = {name for name in names if one.config.get(name) != other.config.get(name)}
    of = [(record.method, record.dataset, record.split) for record in (one, other)]
    return of[0] == of[1] and differ <= MAY_NOT_MATTER


def check_planned(records: Records, report: VerifyReport) -> None:
    """Rows that a published suite plans for a record, or that other records of the same suite, data set and split have,
    and that are missing: a run that was not finished, or rows that somebody left out."""
    planned = _planned(records)
    for path, record in records:
        stored = {(row.index, row.seed) for row in record.rows}
        if record.tuning == TRIAL or all(seed >= MEMBER_STRIDE for _, seed in stored):
            continue
        missing = sorted(planned.get((_suite(record), record.dataset, record.split), set()) - stored)
        if missing:
            names = ", ".join(f"{index}-{seed}" for index, seed in missing[:5])
            report.incomplete.append(
                f"{path}: rows: expected {len(missing)} more, which {_suite(record)} plans ({names}), got none; run it "
                "again"
            )


def _planned(records: Records) -> dict[tuple[str, str, str], set[tuple[int, int]]]:
    """(suite, data set, split) -> runs. Suites are looked up by name only: no path that a record names is opened."""
    seeds = {name: load_suite(name).seeds for name in {_suite(record) for _, record in records} & suite_files().keys()}
    planned: dict[tuple[str, str, str], set[tuple[int, int]]] = defaultdict(set)
    for _, record in records:
        name, family = _suite(record), SPLIT_FAMILIES.get(record.split)
        if family is None or record.tuning == TRIAL:
            continue
        found = planned[name, record.dataset, record.split]
        if name in seeds:
            found.update(index_seed_pairs(family, seeds[name]))
        elif name:
            at = ((row.index, row.seed) for row in record.rows)
            found.update(pair for pair in at if reported(pair[1]))
    return planned


def _suite(record: Record) -> str:
    """The suite in the rows' command; empty for cells without one."""
    words = record.rows[0].command.split() if record.rows else []
    return words[2] if words[:2] == ["gkdbench", "run"] and len(words) > 2 and words[2] != "--only" else ""
