"""Changed records of the toy run, and what `verify` says of them."""

from __future__ import annotations

import copy as copies
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.execute.verification.findings import VerifyReport
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, make_evaluation_graphs
from gkdbench.protocol.scoring import arrays_sha256
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import SidecarArrays, bytes_sha256, npz_bytes, row_arrays
from gkdbench.records.store import load_record, record_bytes, record_paths

Plain = dict[str, Any]


def keep_splits(patch: pytest.MonkeyPatch) -> None:
    """Let `verify` prepare each split once in this process."""
    patch.setattr("gkdbench.execute.verify.prepare_named", _prepared)
    patch.setattr("gkdbench.execute.verify.make_evaluation_graphs", _cut)


@cache
def _prepared(dataset: str, split: str, index: int, *, data: object = None) -> SplitTask:
    return prepare_named(dataset, split, index)


@cache
def _cut(split_task: SplitTask) -> EvaluationGraphs:
    return make_evaluation_graphs(split_task)


def student(copy: Path) -> Path:
    """The inductive student's record: it has every column, and a teacher."""
    return next(p for p in record_paths(copy) if "prod" in load_record(p).columns and load_record(p).teachers)


def changed(facts: Plain, place: tuple[Any, ...], value: Any) -> Plain:
    found = copies.deepcopy(facts)
    target = found
    for part in place[:-1]:
        target = target[part]
    target[place[-1]] = value
    return found


def named(report: VerifyReport, path: Path) -> bool:
    """Whether the report is not clean, and what it says names the record."""
    said = [*report.problems, *report.not_checked, *report.incomplete]
    return report.exit_code in (1, 3) and any(line.startswith(f"{path}: ") for line in said)


def seal(path: Path, arrays: SidecarArrays, facts: Plain) -> None:
    """Write a record and its arrays with every hash made true."""
    data = npz_bytes(arrays)
    path.with_suffix(".npz").write_bytes(data)
    for row in facts["rows"]:
        row["predictions_sha256"] = arrays_sha256(row_arrays(arrays, row["index"], row["seed"]))
    facts["predictions"] |= {"sha256": bytes_sha256(data), "size_bytes": len(data)}
    path.write_bytes(record_bytes(Record.model_validate(facts)))


def first(facts: Plain) -> Plain:
    return facts["rows"][0]["models"][0]
