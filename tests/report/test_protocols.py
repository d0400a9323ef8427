"""Two protocols never share a table, a claim or a comparison; audits and flat models are marked everywhere."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from support.records_factory import TEN, record, sha, teacher, teacher_of

from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.errors import UserError
from gkdbench.protocol import flatness
from gkdbench.records.schema import Record
from gkdbench.report import Selection, build, markdown_table, to_csv, to_html, to_markdown, to_text
from gkdbench.report.claimcheck import check
from gkdbench.report.claimfile import ClaimTest, Side
from gkdbench.report.claimpage import claim_page
from gkdbench.report.comparison import FlatRuns, compare
from gkdbench.report.model import FLAT, FLAT_TEACHER, Board
from gkdbench.report.protocols import AUDIT_ONLY, REPLICATION_ONLY, REPLICATION_SPLITS, best_protocol
from gkdbench.report.reproduction import PublishedGroup, lines_of
from gkdbench.report.wide import WideSelection, wide_table

SETS = ("cora", "citeseer")


def older(made: Record) -> Record:
    """The same record, made under protocol 1."""
    teachers = {role: of.model_copy(update={"key": sha(of.key, 1)}) for role, of in made.teachers.items()}
    facts = {"protocol_version": 1, "selection": "first", "key": sha(made.key, 1), "teachers": teachers}
    return made.model_copy(update=facts)


def rows(dataset: str, shift: float = 0.0) -> list[Record]:
    place: dict[str, Any] = {"dataset": dataset, "data_sha256": sha(dataset)}
    sage = teacher(mean=0.79, **place)
    student = record("glnn", "GLNN", mean=0.7, shift=shift, teachers=teacher_of(sage), **place)
    return [sage, record(mean=0.6, **place), student]


def flat(made: Record, runs: int, taught: int, known: bool = True) -> Record:
    """`made` with so many runs that have a flat model, and that were taught by a flat teacher."""
    changed = []
    for at, row in enumerate(made.rows):
        flags = [*([FLAT] if at < runs else []), *([FLAT_TEACHER] if at < taught else [])]
        models = [m.model_copy(update={"val_loss": 0.5 if known else None}) for m in row.models]
        changed.append(row.model_copy(update={"flags": flags, "models": models}))
    return made.model_copy(update={"rows": changed})


@pytest.fixture(scope="module")
def both() -> Board:
    """Every row under protocol 1, the one data set under both."""
    new = [r for name in SETS for r in rows(name)]
    return build([*map(older, new), *rows("cora", shift=0.05)])


def test_two_protocols_are_two_tables_the_newest_first(both: Board) -> None:
    found = [(t.dataset, t.protocol, t.notes) for t in both.tables]
    assert found == [("citeseer", 1, ()), ("cora", 2, ()), ("cora", 1, ())]
    for table in both.tables:
        assert len(table.entries) == 3 and len({entry.key for entry in table.entries}) == 3
    assert both.protocol_versions == (1, 2)


def test_every_form_of_a_board_says_which(both: Board) -> None:
    text, markdown, page = to_text(both), to_markdown(both), to_html(both)
    for version in (1, 2):
        assert f"cora · planetoid-public · tran · protocol {version}" in text
        assert f"### planetoid-public · tran · protocol {version}" in markdown
        assert f"<small>protocol {version}</small>" in page
    lines = list(csv.DictReader(io.StringIO(to_csv(both))))
    assert {(line["dataset"], line["protocol"]) for line in lines} == {("cora", "1"), ("cora", "2"), ("citeseer", "1")}


def test_means_over_data_sets_are_of_one_protocol(both: Board) -> None:
    assert [(s.protocol, s.datasets) for s in both.summaries] == [(1, ("citeseer", "cora"))]
    assert "## Across data sets: planetoid-public, tran, protocol 1, Taught by SAGE 2x128" in to_markdown(both)


def test_tables_of_a_document_take_the_protocol_that_has_most_and_of_equals_the_newest(both: Board) -> None:
    every = markdown_table(both, Selection(cells=("row", "score")))
    assert every.endswith("All rows: protocol 1.") and "75.00" not in every
    assert markdown_table(both, Selection(datasets=("cora",))).endswith("All rows: protocol 2.")
    assert markdown_table(both, Selection(datasets=("cora",), protocols=("1",))).endswith("All rows: protocol 1.")
    columns = [f"{name}/planetoid-public/tran" for name in SETS]
    assert wide_table(both, WideSelection(tuple(columns))).endswith("Protocol 1.")
    assert wide_table(both, WideSelection((columns[0],))).endswith("Protocol 2.")
    assert wide_table(both, WideSelection((columns[0],), protocols=("1",))).endswith("Protocol 1.")
    with pytest.raises(UserError, match="no column"):
        wide_table(both, WideSelection((columns[1],), protocols=("2",)))


def test_an_incomplete_newer_protocol_waits() -> None:
    board = build([older(record(mean=0.6)), record(mean=0.6, failed={(3, 3): "oom"})])
    assert markdown_table(board, Selection()).endswith("All rows: protocol 1.")
    assert best_protocol([], lambda version: (0,)) is None


SIDES = {"glnn": Side(name="GLNN", method="glnn"), "mlp": Side(name="MLP", method="mlp")}
CLAIM = ClaimTest(
    says="GLNN is better",
    source="the paper",
    reads="higher.",
    candidate="glnn",
    against=["mlp"],
    datasets=list(SETS),
    splits=["planetoid-public"],
    settings=["tran"],
)


def test_a_claim_is_of_one_protocol_the_newest_that_has_all_its_rows() -> None:
    new = [r for name in SETS for r in rows(name, shift=0.05)]
    old = [older(r) for name in SETS for r in rows(name)]
    of_both = check(CLAIM, SIDES, [*old, *new])
    assert (of_both.protocol, of_both.verdict) == (2, "supported")
    assert of_both.lines == check(CLAIM, SIDES, new).lines
    partly = check(CLAIM, SIDES, [*old, *new[:3]])
    assert (partly.protocol, partly.lines) == (1, check(CLAIM, SIDES, old).lines)
    assert check(CLAIM, SIDES, []).protocol is None


PAGE = """
title = "GLNN"
intro = "What it says."
[row.glnn]
name = "GLNN"
method = "glnn"
[row.mlp]
name = "MLP"
method = "mlp"
[[claim]]
says = "GLNN is better"
source = "the paper"
reads = "higher."
candidate = "glnn"
against = ["mlp"]
datasets = ["cora"]
splits = ["planetoid-public"]
settings = ["tran"]
[[figure]]
says = "Steps"
reads = "How many."
rows = ["glnn"]
dataset = "cora"
split = "planetoid-public"
setting = "tran"
readings = { steps = "steps" }
"""


def test_a_page_of_claims_says_protocol_and_flat_runs(tmp_path: Path) -> None:
    page = tmp_path / "glnn.toml"
    page.write_text(PAGE)
    old, new = [older(r) for r in rows("cora")], rows("cora", shift=0.05)
    steps = [r.model_copy(update={"extra": {"steps": 2.0}}) for r in new[2].rows]
    new[2] = flat(new[2].model_copy(update={"rows": steps}), 2, 3)
    text, _ = claim_page(page, [*old, *new])
    assert "| 1 | GLNN is better | **supported** | 2 |" in text
    assert "Verdict: **supported** (protocol 2)." in text and "All rows: protocol 2." in text
    assert "GLNN on cora, planetoid-public, tran: 2 flat, 3 taught by a flat teacher of 10" in text
    assert "Verdict: **supported** (protocol 1)." in claim_page(page, old)[0]


def test_published_numbers_of_a_group_are_answered_under_one_protocol() -> None:
    group = PublishedGroup(says="GNNs", claims=["GCN (Kipf 2017)"])
    made = [teacher("gcn", "GCN 2x16 (Kipf 2017)", "kipf2017_gcn", mean=0.815, dataset=name) for name in SETS]

    def protocols(records: list[Record]) -> list[int]:
        return [line.board_table.protocol for line in lines_of(group, build(records)) if line.board_table]

    assert protocols([*map(older, made), *made]) == [2, 2]
    assert protocols([*map(older, made), made[0]]) == [1, 1]
    page = to_html(build([older(made[0]), made[0]]))
    assert re.findall(r"<h3>(Protocol .)</h3>", page) == ["Protocol 2", "Protocol 1"]
    assert "<dt>reproduced</dt><dd>1</dd>" in page


def test_a_comparison_is_of_one_protocol() -> None:
    one, two = [record("kd", "KD", mean=0.7, dataset=name) for name in SETS], [record(dataset=name) for name in SETS]
    found = compare([*map(older, one), *one], [*map(older, two), *two])
    assert (found.protocol, len(found.lines)) == (2, 2)
    found = compare([*map(older, one), one[0]], [*map(older, two), *two])
    assert (found.protocol, len(found.lines)) == (1, 2)
    assert "paired by (split index, seed), protocol 1" in found.to_text()
    with pytest.raises(UserError, match="in common"):
        compare([older(one[0])], [two[0]])


def test_a_comparison_counts_flat_runs_where_they_are_known() -> None:
    found = compare([flat(record("kd", "KD", mean=0.7), 2, 3)], [flat(record(), 0, 0)])
    assert found.lines[0].flat_first == FlatRuns(10, 2, 3) and found.lines[0].flat_second == FlatRuns(10, 0, 0)
    assert "2 of 10 runs flat, 3 taught by a flat teacher" in " ".join(found.to_text().split())
    unknown = compare([flat(record("kd", "KD"), 0, 0, known=False)], [record()])
    assert (unknown.lines[0].flat_first, "flat" in unknown.to_text()) == (None, False)


def test_a_board_counts_flat_runs_and_says_nothing_where_they_are_not_known() -> None:
    board = build([flat(record(), 2, 3), older(record())])
    new, old = (table.entries[0] for table in board.tables)
    assert (new.flat, new.flat_teacher, old.flat, old.flat_teacher) == (2, 3, None, None)
    assert "| 10/10, 2 flat, 3 taught by a flat teacher |" in to_markdown(board)
    assert "not recorded under protocol 1" in to_markdown(board) and "not recorded under protocol 1" in to_html(board)
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert [(line["flat_runs"], line["flat_teacher_runs"]) for line in lines] == [("2", "3"), ("", "")]
    assert (flatness.FLAT, flatness.FLAT_TEACHER) == (FLAT, FLAT_TEACHER)


AUDIT: dict[str, Any] = {"split": "tu-10fold-testfold", "dataset": "proteins", "setting": "graph",
                         "columns": ("graph",)}  # fmt: skip


def audits(dataset: str = "proteins", **changes: Any) -> list[Record]:
    place = AUDIT | {"audit_only": True, "dataset": dataset} | changes
    gin = teacher("gcn", "GIN", mean=0.7, **place)
    student = record("glnn", "GLNN", mean=0.9, teachers=teacher_of(gin), needs="graph", macs=9000, **place)
    return [gin, record(mean=0.5, **place), student]


def test_an_audit_is_marked_and_compared_with_nothing() -> None:
    results = build(audits(audit_only=False, split="tu-10fold"))
    assert any(entry.bold for table in results.tables for entry in table.entries)
    board = build(audits())
    assert not any(entry.bold or entry.versus for table in board.tables for entry in table.entries)
    for text in (to_text(board, width=200), to_markdown(board), to_html(board), to_csv(board)):
        assert AUDIT_ONLY in " ".join(text.split())
    assert AUDIT_ONLY in markdown_table(board, Selection())
    assert "nothing is compared:" not in to_markdown(board)


def test_an_audit_is_part_of_no_claim_comparison_or_mean_over_data_sets() -> None:
    assert build([*audits(), *audits("mutag")]).summaries == ()
    place = {"datasets": ["proteins"], "splits": ["tu-10fold-testfold"], "settings": ["graph"]}
    found = check(CLAIM.model_copy(update=place), SIDES, audits())
    assert (found.verdict, found.lines) == ("undecided", ())
    with pytest.raises(UserError, match="audits only"):
        compare([audits()[2]], [audits()[1]])


def test_splits_that_exist_for_publications_are_marked() -> None:
    assert set(REPLICATION_SPLITS) == {name for name, family in SPLIT_FAMILIES.items() if family.replication_only}
    assert REPLICATION_ONLY in to_markdown(build([record(split=REPLICATION_SPLITS[0])]))


def test_rows_of_another_rule_stand_apart_with_a_note_and_are_part_of_no_claim() -> None:
    usual = record("glnn", "GLNN", runs=TEN)
    study = usual.model_copy(update={"selection": "later", "key": sha("later")})
    assert {t.notes for t in build([usual, study]).tables} == {(), ("selection later",)}
    assert [t.notes for t in build([study]).tables] == [("selection later",)]
    place = ("cora", "planetoid-public", "tran")
    assert SIDES["glnn"].find([study], *place) is None
    later = SIDES["glnn"].model_copy(update={"selection": "later"}).find([usual, study], *place)
    assert later is not None and later.key == study.key
