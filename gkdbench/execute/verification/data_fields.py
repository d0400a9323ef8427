"""What a record says about its data against the data themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module

from gkdbench.data import builtin
from gkdbench.data.splits import SplitTask
from gkdbench.errors import UserError
from gkdbench.execute.grid import data_info
from gkdbench.execute.verification.findings import Difference
from gkdbench.records.schema import Record, Row

LARGEST_GENERATED = 50_000_000
"""Largest generated data set that is built because a record names it, in numbers: nodes times (features, classes,
neighbours)."""


def generated_size(dataset: str) -> int:
    """About how many numbers a generated data set has; 0 for sets that are read from files.

    Raises:
        UserError: an argument that is no number.
    """
    base, _, chosen = dataset.partition(":")
    info = builtin.BUILTIN.get(base)
    if info is None or not chosen:
        return 0
    module, _, attribute = info.source.partition(":")
    parameters = inspect.signature(getattr(import_module(module), attribute)).parameters
    values = {name: parameter.default for name, parameter in parameters.items()}
    values |= dict(part.partition("=")[::2] for part in chosen.split(","))
    try:
        value = {name: abs(float(text)) for name, text in values.items() if isinstance(text, (int, float, str))}
        per_node = value.get("d", 1.0) + value.get("classes", 1.0) + value.get("degree", 1.0)
        return int(value.get("n", value.get("nodes", 1.0)) * value.get("graphs", 1.0) * per_node)
    except (ValueError, OverflowError):
        raise UserError(f"dataset: expected numbers as arguments of {base}, got {chosen[:100]!r}") from None


def data_differences(record: Record, row: Row, split_task: SplitTask) -> Iterator[Difference]:
    """Content, sizes, metric and split."""
    here = data_info(split_task)
    if here.sha256 != record.data.sha256:
        text = f"the available data have another content ({here.sha256[:12]}) than the record's"
        yield Difference("data.sha256", here.sha256, record.data.sha256, text)
    for name in ("nodes", "edges", "features", "classes", "graphs", "metric"):
        if getattr(here, name) != getattr(record.data, name):
            yield Difference(f"data.{name}", getattr(here, name), getattr(record.data, name))
    if split_task.split.hash != row.split_sha256:
        made, stored = split_task.split.hash[:12], row.split_sha256[:12]
        text = f"the split made from them ({made}) is not the record's ({stored})"
        yield Difference("split_sha256", split_task.split.hash, row.split_sha256, text)


def note_difference(record: Record, split_task: SplitTask) -> Iterator[Difference]:
    """The note on the data's origin, which readers of a table see. A later gkdbench may word it in another way, so that
    another note is said and not wrong."""
    here = split_task.task.note
    if here != record.data.note:
        text = f"data.note: expected {here[:100]!r}, got {record.data.note[:100]!r}"
        yield Difference("data.note", here, record.data.note, text)
