"""Texts that a method chose do nothing to a spreadsheet, a terminal or a page."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path

import pytest

import gkdbench.verbs
from gkdbench.execute.progress import Lines
from gkdbench.printable import printable
from gkdbench.report.csvtable import cell
from gkdbench.report.markdown import plain
from gkdbench.report.markup import tag
from gkdbench.verbs.printing import say, show


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


def test_json_is_printable_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    show([{HOSTILE: HOSTILE + "\x7f\x85"}], as_json=True)
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.replace("\n", "").isprintable()
    assert json.loads(shown) == [{HOSTILE: HOSTILE + "\x7f\x85"}]


def test_what_verbs_say_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE, Path(HOSTILE.replace("\x00", "")))
    assert not set(capsys.readouterr().out) & set("\x1b\x07\x9b\u202e\u2066\r\x00")


def test_without_the_escapes_a_text_reaches_the_terminal_and_a_formula_the_sheet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control."""
    monkeypatch.setattr("gkdbench.verbs.printing.printable", str)
    say(HOSTILE)
    assert "\x1b" in capsys.readouterr().out
    monkeypatch.setattr("gkdbench.report.csvtable.FORMULA", "")
    assert cell("=1+1") == "=1+1"


def test_verbs_print_by_say_alone() -> None:
    """Names, reasons and messages come from others; the board is coloured, and escapes its own texts."""
    found = {
        f"{path.name}: {ast.unparse(call)}"
        for path in Path(gkdbench.verbs.__path__[0]).rglob("*.py")
        if path.name != "printing.py" and "template" not in path.parts
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"
    }
    assert found == {"reporting.py: print(to_text(board, width=width, color=sys.stdout.isatty()))"}


def test_other_letters_are_left_alone() -> None:
    assert printable("Käse\t→ 漢字\n±") == "Käse\t→ 漢字\n±"


def test_a_csv_reader_gets_the_text_back() -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell("=1,2")])
    assert next(csv.reader(io.StringIO(out.getvalue()))) == ["'=1,2"]
