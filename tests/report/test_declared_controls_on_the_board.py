"""A control of another package, known by its records alone, takes its place on the board."""

from __future__ import annotations

from pathlib import Path

from support.records_factory import record, teacher, teacher_of

from gkdbench.records.store import load_record, record_bytes
from gkdbench.report.board import build
from gkdbench.report.model import Board

SAGE = teacher()


def board(folder: Path, control: str | None) -> Board:
    """A taught student, and beside it, read from a file, a taught row that its method says is a control, or is not."""
    student = record("glnn", "GLNN", mean=0.8, teachers=teacher_of(SAGE))
    other = record("shuffled", "Shuffled teacher", mean=0.7, teachers=teacher_of(SAGE))
    path = folder / "shuffled-000000000000.json"
    path.write_bytes(record_bytes(other.model_copy(update={"control": control})))
    return build([SAGE, student, load_record(path)])


def test_the_student_is_compared_with_it_and_it_with_nothing(tmp_path: Path) -> None:
    (column,) = board(tmp_path, "no_transfer").tables
    rows = {entry.label: entry for section in column.sections for entry in section.entries}
    assert rows["Shuffled teacher"].control and rows["Shuffled teacher"].versus is None
    assert rows["GLNN"].versus is not None and rows["GLNN"].versus.control == "Shuffled teacher"


def test_without_the_declaration_it_is_a_method(tmp_path: Path) -> None:
    (column,) = board(tmp_path, None).tables
    rows = {entry.label: entry for section in column.sections for entry in section.entries}
    assert not rows["Shuffled teacher"].control
    assert rows["GLNN"].versus is None
