"""Board, claim pages and `compare` print the same difference, interval and own p for the same two records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cache

import pytest
from support.checkout import ROOT

from gkdbench.records.schema import Record
from gkdbench.report import build, compare, load_records
from gkdbench.report.claimcheck import check_all
from gkdbench.report.claimfile import ClaimPage
from gkdbench.report.comparison import PairedComparison
from gkdbench.report.model import Table, TableRow
from gkdbench.report.statistics import SignFlip, sign_flip
from gkdbench.report.tomlpage import read_page


@cache
def records(*below: str) -> Mapping[str, Record]:
    folders = [ROOT / "results" / name for name in below] or [ROOT / "results"]
    return {record.key: record for folder in folders for record in load_records(folder)}


def line_of(known: Mapping[str, Record], first: str, second: str, setting: str) -> PairedComparison:
    found = compare([known[first]], [known[second]]).lines
    return next(line for line in found if line.setting == setting)


def numbers(line: PairedComparison) -> tuple[object, ...]:
    return line.difference, line.interval, line.p_value


def of_test(test: SignFlip | None) -> tuple[object, ...]:
    return (None, None, None) if test is None else (test.difference, test.interval, test.p_value)


def comparable(row: TableRow) -> bool:
    """`compare` shows the one row of a record, or the mean of its peers."""
    return row.complete and row.done >= 6 and row.aggregate in ("single", "mean of peers")


def printed(tables: list[Table]) -> Iterator[tuple[Table, TableRow, TableRow]]:
    """Every row with the control that the board prints beside it, where `compare` can show both."""
    for table in tables:
        for row in table.entries:
            own = [c for c in table.entries if c.variant == "corrected" and c.teacher in (None, row.teacher)]
            for control in own if row.versus and comparable(row) else ():
                if row.versus and control.name == row.versus.control and comparable(control):
                    yield table, row, control


def test_board_and_compare_agree() -> None:
    known = records("cora/cpf-lcc-20-30")
    found = list(printed([table for table in build(list(known.values())).tables if not table.notes]))
    assert len(found) >= 3
    for table, row, control in found:
        assert row.versus is not None
        line = line_of(known, row.key, control.key, table.setting)
        assert numbers(line) == of_test(row.versus.estimate.test), (table.heading, row.name, control.name)


def test_claim_pages_and_compare_agree() -> None:
    page = read_page(ROOT / "docs" / "claims" / "rbm.toml", ClaimPage)
    known = records("cora/cpf-lcc-20-30", "pubmed/cpf-lcc-20-30")
    claim = next(claim for claim in page.claim if claim.candidate == "rbm" and "krd" in claim.against)
    (found,) = check_all([claim], page.row, list(known.values()))
    own = [record for record in known.values() if record.protocol_version == found.protocol]
    sides = {page.row[name].name: page.row[name] for name in (claim.candidate, *claim.against)}
    assert len(found.lines) >= 3
    for line in found.lines[:6]:
        ours, theirs = (sides[name].find(own, *line.place) for name in (line.candidate, line.rival))
        assert ours is not None and theirs is not None
        assert numbers(line_of(known, ours.key, theirs.key, line.place[2])) == of_test(line.estimate.test), line.place


@pytest.mark.full
def test_every_pair_of_the_published_records_has_one_set_of_numbers() -> None:
    seen, known = 0, records()
    board = build(list(known.values()))
    for table in board.tables:
        if table.remarks:
            continue
        for section in table.sections:
            rows = [row for row in section.entries if comparable(row)]
            for one, two in itertools.combinations(rows, 2):
                runs = one.scores.keys() & two.scores.keys()
                if one.key == two.key or len(runs) < 6:
                    continue
                gains = [one.scores[run] - two.scores[run] for run in runs]
                expected = of_test(sign_flip(gains) if any(gains) else None)
                assert numbers(line_of(known, one.key, two.key, table.setting)) == expected, (
                    table.heading,
                    one.name,
                    two.name,
                )
                seen += 1
    assert seen > 500
    for table, row, control in printed(list(board.tables)):
        assert row.versus is not None
        assert numbers(line_of(known, row.key, control.key, table.setting)) == of_test(row.versus.estimate.test)
