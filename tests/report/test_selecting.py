"""Rows of a board by the names that they carry: comparisons stay those of the whole board."""

from __future__ import annotations

import pytest
from support.sample_board import sample_records

from gkdbench.errors import UnknownName, UserError
from gkdbench.report import build
from gkdbench.report.csvtable import FIELDS, row_facts
from gkdbench.report.selecting import choose_records, parse_only, part_of

RECORDS = sample_records()
BOARD = build(RECORDS)


def test_a_part_has_the_rows_that_are_asked_and_their_comparisons() -> None:
    part = part_of(BOARD, choose_records(RECORDS, parse_only("method=glnn|kd,dataset=cora")))
    whole = [entry for table in BOARD.tables for entry in table.entries if table.dataset == "cora"]
    wanted = [entry for entry in whole if entry.method in ("glnn", "kd")]
    assert [entry for table in part.tables for entry in table.entries] == wanted
    assert any(entry.versus for entry in wanted)  # from rows that the part leaves out
    assert part.summaries == ()
    (kept,) = {entry.key for entry in wanted if entry.label == "KD to GCN 2x64"}
    assert [r.label for r in choose_records(RECORDS, {"key": kept[:12]})] == ["KD to GCN 2x64"]
    assert choose_records(RECORDS, {}) == RECORDS


def test_failures_of_other_rows_are_left_out() -> None:
    assert BOARD.failures
    assert part_of(BOARD, choose_records(RECORDS, {"method": "glnn"})).failures == ()
    assert len(part_of(BOARD, choose_records(RECORDS, {"method": "rbm"})).failures) == len(BOARD.failures)


def test_what_matches_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown method of these records 'glmn'; did you mean 'glnn'"):
        choose_records(RECORDS, parse_only("method=glmn"))
    with pytest.raises(UserError, match="got none for method=kd,setting=ind"):
        choose_records(RECORDS, parse_only("method=kd,setting=ind"))
    with pytest.raises(UserError, match=r"--first-only: .*'metod'; did you mean 'method'"):
        parse_only("metod=kd", "--first-only")


def test_rows_for_programs_have_the_fields_of_the_csv() -> None:
    rows = row_facts(BOARD)
    assert len(rows) == sum(len(table.entries) for table in BOARD.tables)
    assert all(set(row) <= set(FIELDS) and row["record"] for row in rows)
