"""Checks published numbers against their side-cars and the data; nothing in a record is trusted.

What each check compares is in `gkdbench.execute.verification`; what nothing can contradict is in docs/protocol.md,
section 4.7.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gkdbench.data.datasets import MissingData
from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.errors import UnknownName, UserError
from gkdbench.execute.selected_epochs import selection_problems
from gkdbench.execute.verification import other_records
from gkdbench.execute.verification.curve_fields import (
    curve_differences,
    epoch_differences,
    look_differences,
    spike_differences,
)
from gkdbench.execute.verification.data_fields import (
    LARGEST_GENERATED,
    data_differences,
    generated_size,
    note_difference,
)
from gkdbench.execute.verification.findings import CheckedRow, Difference, VerifyReport
from gkdbench.execute.verification.origins import dirty_rows, mixed_origin, origin_differences
from gkdbench.execute.verification.record_fields import record_differences
from gkdbench.execute.verification.resolved_form import form_differences, is_own
from gkdbench.execute.verification.row_fields import row_differences, uneven_rows, uneven_sizes
from gkdbench.execute.verification.stored_arrays import sidecar_differences, stored_arrays
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, make_evaluation_graphs
from gkdbench.protocol.scoring import arrays_sha256, rescore
from gkdbench.protocol.sweeps import resweep
from gkdbench.records.claims import undisturbed
from gkdbench.records.schema import Record, Row
from gkdbench.records.sidecar import row_arrays
from gkdbench.records.store import load_record, record_paths

__all__ = ["VerifyReport", "verify"]

Tell = Callable[[int, int, str], None]
_UNREGISTERED = "dataset: {} is not registered here: install its package, or verify in the script that ran it"


def verify(path: str | Path, *, data: str | Path | None = None, tell: Tell | None = None) -> VerifyReport:
    """Check every record below `path` (or the one record `path`).

    Schema, key, name, settings against the registry and the split family, side-car hash, hash of every row's arrays,
    every score from predictions and labels, those of sweeps included, every audit and every selected epoch from its
    curves, sizes of the data, one set of weights per teacher in all rows that name it, rows that are missing. A record
    that breaks a check is a finding of that record; the others are checked all the same.

    Args:
        data: folder of raw files; default: ``$GKDBENCH_DATA``.
        tell: called with (steps done, all steps, what is next); a step is a record, or the splits of a data set.

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
    records: list[tuple[Path, Record]] = []
    runs: list[CheckedRow] = []
    for number, found in enumerate(paths):
        if tell is not None:
            tell(number, 2 * len(paths), found.name)
        report.records += 1
        try:
            with undisturbed(found):
                record = load_record(found)
                runs += _check_record(found, record, report)
            records.append((found, record))
        except FileNotFoundError:  # gone since it was listed
            report.records -= 1
        except UserError as error:
            told = str(error).removeprefix(f"{found}: ").removeprefix(f"{found} ")
            report.add(found, None, Difference("", text=told))
        except Exception as error:  # whatever an odd record makes a check raise is a finding of this record
            report.add(found, None, _odd(error))
    by_key = {record.key: record for _, record in records}
    for found, record in records:
        _guarded(report, found, None, other_records.teacher_differences, record, by_key)
    other_records.check_sizes(records, report)
    other_records.check_teachers(runs, report)
    other_records.check_flat_teachers(runs, report)
    other_records.check_copies(runs, report)
    other_records.check_planned(records, report)
    _check_scores(runs, data, report, tell)
    return report


def _odd(error: BaseException) -> Difference:
    return Difference(
        "", text=f"cannot be checked ({type(error).__name__}: {str(error)[:150]}); restore it from a copy"
    )


def _guarded(
    report: VerifyReport, path: Path, row: Row | None, check: Callable[..., Iterable[Difference]], *given: object
) -> None:
    """Report what `check` finds when it is called with `given`; what it raises is a finding, too."""
    try:
        for difference in check(*given):
            report.add(path, row, difference)
    except Exception as error:
        report.add(path, row, _odd(error))


def _check_record(path: Path, record: Record, report: VerifyReport) -> list[CheckedRow]:
    """Everything that needs neither data nor other records."""
    _guarded(report, path, None, record_differences, path, record)
    _guarded(report, path, None, form_differences, record)
    _guarded(report, path, None, origin_differences, record)
    for row in record.rows:
        _guarded(report, path, row, row_differences, record, row)
    for row, difference in uneven_rows(record):
        report.add(path, row, difference)
    note = report.add if is_own(record.method) else report.leave
    for row, difference in uneven_sizes(record):
        note(path, row, difference)
    report.dirty += dirty_rows(path, record)
    report.mixed += mixed_origin(path, record)
    try:
        arrays = stored_arrays(path, record)
    except UserError as error:
        report.add(path, None, Difference("predictions", text=str(error)))
        return []
    _guarded(report, path, None, sidecar_differences, path, record, arrays)
    runs = []
    kept = record.predictions is None or record.predictions.kept
    for row in record.rows:
        own = row_arrays(arrays, row.index, row.seed)
        if row.predictions_sha256 is not None and kept and arrays_sha256(own) != row.predictions_sha256:
            text = "its arrays do not have the hash of the record"
            report.add(path, row, Difference("predictions_sha256", arrays_sha256(own), row.predictions_sha256, text))
        elif row.status == "ok" and not kept:
            report.leave(path, row, Difference("predictions", text=f"predictions not kept; `{row.command}`"))
        elif row.status == "ok" and row.models:
            runs.append(CheckedRow(path, record, row, own))
    return runs


def _check_scores(
    runs: list[CheckedRow], data: str | Path | None, report: VerifyReport, tell: Tell | None = None
) -> None:
    by_problem: dict[tuple[str, str, int], list[CheckedRow]] = defaultdict(list)
    for run in runs:
        by_problem[run.record.dataset, run.record.split, run.row.index].append(run)
    done = 0
    for name, same in sorted(by_problem.items()):
        if tell is not None:  # the scores take about as long as the records, which were the first half
            tell(report.records + report.records * done // len(runs), 2 * report.records, f"{name[0]} {name[1]}")
        done += len(same)
        try:
            if generated_size(name[0]) > LARGEST_GENERATED:
                for run in same:
                    text = f"dataset: {name[0][:80]} is larger than the generated sets that are built to check a record"
                    report.leave(run.path, run.row, Difference("dataset", text=text))
                continue
            split_task = prepare_named(*name, data=data)
            evaluation_graphs = make_evaluation_graphs(split_task)
        except MissingData as error:
            why = str(error).splitlines()[0]
            for run in same:
                report.leave(run.path, run.row, Difference("dataset", text=f"data absent ({why})"))
            continue
        except Exception as error:  # no such data set, split or index, or one that cannot be made
            if isinstance(error, UnknownName) and error.kind == "dataset":  # of another package, or of a script
                for run in same:
                    report.leave(run.path, run.row, Difference("dataset", text=_UNREGISTERED.format(name[0][:80])))
                continue
            for run in same:
                text = f"dataset, split, index: expected a split that can be made, got {name} ({str(error)[:150]})"
                report.add(run.path, run.row, Difference("dataset", text=text))
            continue
        for run in same:
            _guarded(report, run.path, run.row, _run_differences, run, split_task, evaluation_graphs)
            for difference in note_difference(run.record, split_task):
                report.leave(run.path, run.row, difference)
            report.scores += sum(len(model.scores) + 1 for model in run.row.models)
            report.scores += sum(len(of) for step in run.row.sweeps for of in step.scores.values())


def _run_differences(
    run: CheckedRow, split_task: SplitTask, evaluation_graphs: EvaluationGraphs
) -> Iterator[Difference]:
    """Everything about one row that needs its data."""
    live = [scored_set.column for scored_set in evaluation_graphs.scored_sets if scored_set.live]
    yield from data_differences(run.record, run.row, split_task)
    yield from epoch_differences(run.row, run.arrays)
    yield from look_differences(run.record, run.row, run.arrays)
    yield from spike_differences(run.record, run.row, run.arrays)
    for model in run.row.models:
        of = f"models.{model.name}"
        for text in rescore(split_task, evaluation_graphs, run.arrays, model):
            yield Difference(of, text=text)
        yield from curve_differences(run.record, run.arrays, model)
        for text in selection_problems(run.record, run.arrays, model, live, own_method=is_own(run.record.method)):
            yield Difference(of, text=text)
    for text in resweep(split_task, evaluation_graphs, run.arrays, run.row, run.record.sweeps):
        yield Difference("sweeps", text=text)
