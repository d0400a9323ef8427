"""A record against the registered method in the form that its settings describe."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gkdbench.errors import UserError
from gkdbench.execute.cell import plain
from gkdbench.execute.verification.findings import Difference
from gkdbench.records.schema import Record
from gkdbench.training.method import Method
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve_stored


def is_own(method: str) -> bool:
    """Whether gkdbench itself brings the method."""
    entry = METHODS.entries().get(method)
    return entry is not None and entry.target.startswith("gkdbench.")


def form_differences(record: Record) -> Iterator[Difference]:
    """Label, control, teachers and their labels, as this code gives them for the record's settings.

    Methods that are not installed, and other revisions than the installed one, are not compared: their labels were made
    by other code.
    """
    method = _resolved(record.method, record.config)
    if method is None or type(method).revision != record.revision:
        return
    if plain(method.config()) != record.config:
        unknown = sorted(record.config.keys() ^ plain(method.config()).keys()) or sorted(
            name for name, value in plain(method.config()).items() if record.config.get(name) != value
        )
        yield Difference("config", "every setting of the method", ", ".join(unknown))
    if not same_label(method.label, record.label):
        yield Difference("label", method.label, record.label)
    if method.control_kind != record.control:
        yield Difference("control", method.control_kind, record.control)
    for role, need in method.requires().items():
        if role not in record.teachers:
            yield Difference("teachers", f"a {role}", sorted(record.teachers))
        elif record.teachers[role].method != need.method:
            yield Difference(f"teachers.{role}.method", need.method, record.teachers[role].method)
    for role, teacher in record.teachers.items():
        form = _resolved(teacher.method, teacher.config)
        if form is not None and not same_label(form.label, teacher.label):
            yield Difference(f"teachers.{role}.label", form.label, teacher.label)


def _resolved(name: str, config: dict[str, object]) -> Method | None:
    """The method with these settings; None where this installation has none such."""
    try:
        return resolve_stored(name, config)
    except UserError:
        return None


def same_label(one: str, other: str) -> bool:
    """Whether two labels agree but for the order of the settings that they list."""
    return sorted(re.split(r"[\s,()]+", one)) == sorted(re.split(r"[\s,()]+", other))
