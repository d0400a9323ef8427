"""The board as CSV: one line per row of a table, raw numbers in [0, 1], for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io

from gkdbench.printable import printable
from gkdbench.report.cost import cost_fields
from gkdbench.report.model import Board, Table, TableRow

FIELDS = (
    "dataset", "split", "setting", "protocol", "remarks", "kind", "section", "method", "label", "aggregate",
    "variant", "teacher", "mean", "std_ddof1", "runs", "planned", "preview", "audit_gap", "versus", "difference",
    "p_own", "p_family", "outcome", "needs", "parameters", "macs", "versus_training", "difference_training",
    "p_own_training", "p_family_training", "outcome_training", "training_macs", "train_j", "device", "inference_ratio",
    "inference_low", "inference_high",
    "latency_ratio", "latency_low", "latency_high", "epoch_ratio", "epoch_low", "epoch_high", "prepare_s",
    "items_per_s", "latency_p50_s", "latency_p90_s", "epoch_s", "seconds_to_selected", "training_peak_bytes",
    "inference_peak_bytes", "cost_marks", "flat_runs", "flat_teacher_runs", "published_percent", "verdict", "why",
    "statuses", "record",
)  # fmt: skip


FORMULA = tuple("=+-@\t\r\n")
"""A text that begins with one of these may be a formula to a spreadsheet."""


def to_csv(board: Board) -> str:
    """One header line, then one line per row; empty cells where a row has no such value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    for line in row_facts(board):
        writer.writerow({key: cell(value) for key, value in line.items()})
    return out.getvalue()


def row_facts(board: Board) -> list[dict[str, object]]:
    """The rows of all tables, by the names of `FIELDS`; scores are in [0, 1], None where a row has no such value."""
    return [
        _line(table, section.title, entry)
        for table in board.tables
        for section in table.sections
        for entry in section.entries
    ]


def cell(value: object) -> object:
    """`value`; of a text that a spreadsheet would take for a formula, the text behind an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if value.lstrip(" ")[:1] in FORMULA else text
    return text


def _line(table: Table, section: str, entry: TableRow) -> dict[str, object]:
    mean, std = entry.mean_std or (None, None)
    versus, training = entry.versus, entry.versus_training
    return {
        "dataset": table.dataset,
        "split": table.split,
        "setting": table.setting,
        "protocol": table.protocol,
        "remarks": "; ".join(table.remarks),
        "kind": "; ".join(table.notes),
        "section": section,
        "method": entry.method,
        "label": entry.label,
        "aggregate": entry.aggregate,
        "variant": entry.variant,
        "teacher": entry.teacher,
        "mean": mean,
        "std_ddof1": std,
        "runs": entry.done,
        "planned": len(entry.planned),
        "preview": entry.preview,
        "audit_gap": entry.gap,
        "versus": versus and versus.control,
        "difference": versus and versus.estimate.difference,
        "p_own": versus and versus.estimate.test and versus.estimate.test.p_value,
        "p_family": versus and versus.estimate.p_family,
        "outcome": versus and versus.outcome,
        "needs": entry.needs,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "versus_training": training and training.control,
        "difference_training": training and training.estimate.difference,
        "p_own_training": training and training.estimate.test and training.estimate.test.p_value,
        "p_family_training": training and training.estimate.p_family,
        "outcome_training": training and training.outcome,
        "training_macs": entry.training_macs,
        "train_j": entry.train_j,
        **cost_fields(entry.cost),
        "flat_runs": entry.flat,
        "flat_teacher_runs": entry.flat_teacher,
        "published_percent": "; ".join(str(float(v.published.mean)) for v in entry.verdicts),
        "verdict": "; ".join(v.status for v in entry.verdicts),
        "why": "; ".join(v.why for v in entry.verdicts),
        "statuses": "; ".join(f"{status} {count}" for status, count in sorted(entry.statuses.items())),
        "record": entry.key,
    }
