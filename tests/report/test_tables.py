"""Text, Markdown and CSV say the same as the board, and a README's tables come from records only."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from support.records_factory import TEN, record, teacher, teacher_of
from support.sample_board import expected, sample_records

from gkdbench.errors import UnknownName, UserError
from gkdbench.records.schema import Record
from gkdbench.report import Board, Selection, build, markdown_table, splice, to_csv, to_markdown, to_text
from gkdbench.report.cells import count, percent, points


@pytest.fixture(scope="module")
def board() -> Board:
    return build(sample_records(), expected=expected())


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (812, "812"), (23_063, "23.1k"), (1_900_000, "1.9M"), (10**10, "10G")]
)
def test_counts(value: int | None, text: str) -> None:
    assert count(value) == text


def test_points_are_signed_and_zero_is_plain() -> None:
    assert [points(v) for v in (0.0123, -0.0123, -0.000001)] == ["+1.23", "-1.23", "+0.00"]
    assert percent(0.81305) == "81.31"


def test_text_has_every_row_and_what_failed(board: Board) -> None:
    text = to_text(board, width=160)
    for entry in (entry for column in board.tables for entry in column.entries):
        assert entry.label.split()[0] in text
    assert "oom: RbM 8 experts on cora, planetoid-public, run 4:4" in text
    assert "again: gkdbench run --only 4:4" in text and "missing: 10 runs of 1 rows" in text
    assert "\x1b" not in text and "\x1b" in to_text(board, color=True)
    assert max(map(len, text.splitlines())) <= 160


@pytest.mark.parametrize("width", [60, 80, 100])
def test_text_of_a_narrow_terminal_is_wrapped_and_loses_no_word(board: Board, width: int) -> None:
    narrow, wide = to_text(board, width=width), to_text(board, width=400)
    assert max(map(len, narrow.splitlines())) <= width
    assert "…" not in narrow
    words = {word for word in wide.split() if "─" not in word}
    assert {word for word in words if word not in narrow and len(word) < 20} == set()


def test_text_of_hostile_names_is_printed_as_it_is() -> None:
    assert "[bold]x[/bold]" in to_text(build([record(label="[bold]x[/bold]")]))


def test_markdown_tables_are_rectangular_and_bold_only_wins(board: Board) -> None:
    text = to_markdown(board)
    bold = [entry for column in board.tables for entry in column.entries if entry.bold]
    assert bold and text.count("**") == 2 * len(bold)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "corrected form" in to_markdown(build([_corrected_glnn()]))


def _corrected_glnn() -> Record:
    place: dict[str, Any] = {"split": "cpf-lcc-20-30-ind20", "setting": "ind", "columns": ("prod",)}
    return record("glnn", "GLNN", teachers=teacher_of(teacher(**place)), **place)


def test_csv_holds_the_raw_numbers(board: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert len(lines) == sum(len(column.entries) for column in board.tables)
    kipf = next(x for x in lines if x["label"] == "GCN 2x16 (Kipf 2017)" and x["dataset"] == "cora")
    assert float(kipf["mean"]) == pytest.approx(0.813) and kipf["verdict"] == "reproduced"
    assert kipf["published_percent"] == "81.5" and kipf["runs"] == kipf["planned"] == "10"
    failed = next(x for x in lines if x["label"] == "RbM 8 experts")
    assert failed["mean"] == "" and failed["statuses"] == "nan 1; ok 8; oom 1"


def test_a_selection_gives_one_flat_table(board: Board) -> None:
    table = markdown_table(board, Selection(methods=("teacher",), splits=("planetoid-public",), compared=True))
    lines = table.splitlines()
    assert lines[0] == "| Data set | Split | Setting | Row | Score | Runs | Audit | Published | Verdict |"
    assert lines[3] == (
        "| cora | planetoid-public | tran | GCN 2x16 (Kipf 2017) | 81.30 ± 0.40 | 10/10 | +1.00 | 81.5 | "
        "reproduced (-0.20, tol 0.50) |"
    )
    assert len(lines) == 7 and lines[5:] == ["", "All rows: protocol 2."]


def test_selections_that_fit_nothing_or_name_no_column_are_refused(board: Board) -> None:
    with pytest.raises(UserError, match="no row"):
        markdown_table(board, Selection(datasets=("reddit",)))
    with pytest.raises(UnknownName, match="did you mean 'score'"):
        Selection(cells=("scor",))


def test_kinds_are_told_apart_in_a_selection(board: Board) -> None:
    table = markdown_table(board, Selection(datasets=("cora",), splits=("cpf-lcc-20-30-ind20",), methods=("mlp",)))
    assert "threads 1" in table and "threads 2" in table


def test_a_flat_table_says_which_rows_are_as_released(board: Board) -> None:
    chosen = Selection(datasets=("cora",), splits=("cpf-lcc-20-30-ind20",), methods=("glnn",), cells=("row", "score"))
    rows = markdown_table(board, chosen).splitlines()[2:-2]
    assert rows and all("GLNN 2x128 (as released) |" in row for row in rows)


def test_markdown_escapes_what_would_break_a_table() -> None:
    table = markdown_table(build([record(label="a|b *c* <d>")]), Selection(cells=("row",)))
    assert r"a\|b \*c\* \<d\>" in table


def test_splice_replaces_between_its_markers_only() -> None:
    text = "before\n<!-- table a k=v,w -->\nold\n<!-- end a -->\nafter <!-- table ab -->x<!-- end ab -->\n"
    done = splice(text, "a", "| new |\n")
    assert done == text.replace("old", "| new |")
    assert splice(done, "a", "| new |") == done
    for broken in ("no markers", text + text, "<!-- end a --> <!-- table a -->"):
        with pytest.raises(UserError, match="once each"):
            splice(broken, "a", "x")


def test_a_preview_is_marked_wherever_it_is_printed() -> None:
    board = build([record(runs=TEN[:3])])
    for text in (to_text(board), to_markdown(board), markdown_table(board, Selection())):
        assert "60.00 ± 1.00 (preview)" in text
