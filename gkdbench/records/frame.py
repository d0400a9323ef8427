"""Records as a table: one line per run, model and reported setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError
from gkdbench.records.schema import Record, Row
from gkdbench.records.store import load_record, record_paths


def records_frame(records: str | Path | Iterable[str | Path | Record]) -> Any:
    """A `pandas.DataFrame` of records: a folder, a record's file, or a mixture of files and Records.

    Columns: method, label, variant, protocol (its version), dataset, split, setting (the reported one), index, seed,
    status, model, score and val in [0, 1], n, audit_peak, audit_gap, selected_epoch, parameters, macs, train_s, train_j
    (energy where it could be read), key. Failed runs have one line without a score.

    Raises:
        UserError: pandas is not installed, or a file is no record.
    """
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise UserError(
            "records_frame: expected the package pandas, got none installed; try pip install 'gkdbench[report]'"
        ) from None
    given = [records] if isinstance(records, str | Path) else list(records)
    lines = [line for record in _loaded(given) for line in record_lines(record)]
    return pandas.DataFrame(lines, columns=list(_COLUMNS))


_COLUMNS = (
    "method", "label", "variant", "protocol", "dataset", "split", "setting", "index", "seed", "status", "model",
    "score", "val", "n", "audit_peak", "audit_gap", "selected_epoch", "parameters", "macs", "train_s", "train_j", "key",
)  # fmt: skip


def _loaded(given: Iterable[str | Path | Record]) -> Iterator[Record]:
    for item in given:
        if isinstance(item, Record):
            yield item
        else:
            yield from (load_record(path) for path in record_paths(Path(item)))


def record_lines(record: Record) -> Iterator[dict[str, Any]]:
    """The lines of one record, as plain dicts."""
    for row in record.rows:
        common = {
            "method": record.method,
            "label": record.label,
            "variant": record.variant,
            "protocol": record.protocol_version,
            "dataset": record.dataset,
            "split": record.split,
            "index": row.index,
            "seed": row.seed,
            "status": row.status,
            "train_s": row.train_s,
            "train_j": row.train_j,
            "key": record.key,
        }
        scored = list(_scored(row))
        yield from (common | line for line in scored or [{}])


def _scored(row: Row) -> Iterator[dict[str, Any]]:
    for model in row.models:
        for column, score in model.scores.items():
            audit = model.audit.get(column)
            yield {
                "model": model.name,
                "setting": column,
                "score": score.value,
                "val": model.val,
                "n": score.n,
                "audit_peak": audit.peak if audit else None,
                "audit_gap": audit.gap if audit else None,
                "selected_epoch": model.selected_epoch,
                "parameters": model.parameters,
                "macs": model.macs,
            }
