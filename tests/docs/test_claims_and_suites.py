"""Pages of claims against the suites that make their rows: no row is missing, none can be two.

Rows are looked for among the records that the suites' plans will have (protocol 2); nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product

import pytest
from support.checkout import ROOT
from support.planned_records import planned_records

from gkdbench.data.families import split_family
from gkdbench.errors import UserError
from gkdbench.execute.suite import suite_files
from gkdbench.records.schema import Record
from gkdbench.report.claimfile import ClaimPage, Side
from gkdbench.report.loading import without_repeats
from gkdbench.report.tomlpage import read_page

OWN = {
    "alignahead": ("alignahead@2",),
    "gml": ("gml@1",),
    "rbm": ("rbm@1", "rbm-public@1"),
    "rbm-ablation": ("rbm-ablation@2",),
}
"""Page -> the suites that make all its rows."""
Place = tuple[str, str, str]


def page_of(name: str) -> ClaimPage:
    return read_page(ROOT / "docs" / "claims" / f"{name}.toml", ClaimPage)


@cache
def planned(suite: str) -> tuple[Record, ...]:
    return tuple(planned_records(suite))


def records_of(suites: Iterable[str]) -> list[Record]:
    """What a page reads when these suites have run: each group once, swept twins left out."""
    return without_repeats(list({record.key: record for suite in suites for record in planned(suite)}.values()))


def used(page: ClaimPage) -> set[tuple[str, Place]]:
    """(row, place) of every claim and figure, where the split reports the setting."""
    found: set[tuple[str, Place]] = set()
    for part in (part for claim in page.claim for part in claim.parts):
        for name, (dataset, split), setting in product((part.candidate, *part.against), part.where, part.settings):
            family = split_family(split)
            if setting in (family.columns if family.setting != "graph" else ("graph",)):
                found.add((name, (dataset, split, setting)))
    for shown in (*page.figure, *page.curve, *page.sweep):
        found |= {(name, (shown.dataset, shown.split, shown.setting)) for name in shown.rows}
    return found


def wrong(page: ClaimPage, records: Sequence[Record], *, all_there: bool) -> list[str]:
    """Rows of `page` that several of `records` fit, and with `all_there` also those that none fits."""
    found = []
    for name, place in sorted(used(page)):
        try:
            if page.row[name].find(records, *place) is None and all_there:
                found.append(f"{name}: none on {place}")
        except UserError as error:
            found.append(f"{name}: {error}")
    return found


def test_every_page_is_tested() -> None:
    assert {path.stem for path in (ROOT / "docs" / "claims").glob("*.toml")} == OWN.keys()


@pytest.mark.parametrize("name", OWN)
def test_every_row_of_a_page_is_exactly_one_row_of_its_suites(name: str) -> None:
    assert wrong(page_of(name), records_of(OWN[name]), all_there=True) == []


@pytest.mark.parametrize("name", OWN)
def test_no_row_is_ambiguous_when_every_suite_has_run(name: str) -> None:
    """A page reads its study's records, or those of the board, which no study is among."""
    study, studies = page_of(name).study, {page_of(other).study for other in OWN}
    beside = [
        suite
        for suite in suite_files()
        if (of := suite.partition("@")[0]) == study or (not study and of not in studies)
    ]
    assert wrong(page_of(name), records_of(beside), all_there=False) == []


@pytest.mark.parametrize(("name", "row"), [("rbm-ablation", "rbm"), ("gml", "bgnn")])
def test_the_check_sees_rows_that_say_too_little(name: str, row: str) -> None:
    page = page_of(name)
    page.row[row] = Side(**page.row[row].model_dump() | {"later": {}, "config": {}, "off": []})
    assert any(
        text.startswith(f"{row}:") and "fits several" in text
        for text in wrong(page, records_of(OWN[name]), all_there=True)
    )
    page.row[row] = page.row[row].model_copy(update={"config": {"lr": -1.0}})
    assert any(text.startswith(f"{row}: none on") for text in wrong(page, records_of(OWN[name]), all_there=True))
