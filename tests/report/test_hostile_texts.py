"""Texts that a method chose do nothing to a spreadsheet, a terminal or a page."""

from __future__ import annotations

import csv
import io

import pytest

from gkdbench.execute.progress import Lines
from gkdbench.printable import printable
from gkdbench.report.csvtable import cell
from gkdbench.report.markdown import plain
from gkdbench.report.markup import tag
from gkdbench.verbs.printing import show


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_formula_is_a_text(text: str) -> None:
    assert str(cell(text)).startswith("'")


@pytest.mark.parametrize("value", ["-0.5", "+3", "mlp", "a=b", "1e-3", -0.5, 3, None, ""])
def test_numbers_and_plain_texts_stay(value: object) -> None:
    assert cell(value) == value


HOSTILE = "a\x1b[2Jb\x07c\x9bd\u202ee\u2066f\rg\x00"


@pytest.mark.parametrize(
    "make", [printable, plain, lambda text: str(tag("p", text, title=text)), lambda t: str(cell(t))]
)
def test_no_control_character_is_left(make) -> None:
    made = make(HOSTILE)
    assert not set(made) & set("\x1b\x07\x9b\u202e\u2066\r\x00")
    assert "x1b" in made


def test_lines_of_progress_and_tables_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    Lines(stream).note(HOSTILE)
    show([{"label": HOSTILE}], as_json=False)
    assert "\x1b" not in stream.getvalue() + capsys.readouterr().out


def test_other_letters_are_left_alone() -> None:
    assert printable("Käse\t→ 漢字\n±") == "Käse\t→ 漢字\n±"


def test_a_csv_reader_gets_the_text_back() -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell("=1,2")])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ["'=1,2"]
