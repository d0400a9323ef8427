"""The page: self-contained, well-formed, escaped, and no number without its marks."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from support.records_factory import TEN, record, teacher, teacher_of
from support.sample_board import expected, sample_records

from gkdbench.records.schema import Provenance
from gkdbench.report import build, to_html
from gkdbench.report.cells import CELLS
from gkdbench.report.markup import Markup, join, tag

VOID = {"meta", "br", "link", "img", "input"}
NASTY = '<script>alert("x")</script> & "quoted" \'single\''


class Page(HTMLParser):
    """Checks nesting and keeps what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.unboxed_tables = 0
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        assert len(known) == len(attrs), f"attribute twice on {name}"
        self.tags.append((name, known))
        if name == "table" and not any(a.get("class") == "box" for _, a in self.open):
            self.unboxed_tables += 1
        if name not in VOID:
            self.open.append((name, known))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop()[0] == name

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return to_html(build(sample_records(), expected=expected()))


def test_the_page_is_well_formed_and_asks_for_nothing(html: str) -> None:
    page = Page(html)
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe"})
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [(attrs.get("href") or "")[1:] for name, attrs in page.tags if name == "a"]
    assert (
        {"data-cora", "data-citeseer", "data-pubmed", "reading", "publications", "across"} == set(targets) <= set(ids)
    )


def test_every_table_scrolls_in_a_box_and_every_row_fills_it(html: str) -> None:
    assert Page(html).unboxed_tables == 0
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        head, *rows = [
            sum(int(n or 1) for n in re.findall(r'<t[hd](?: colspan="(\d+)")?', line))
            for line in table.split("<tr")[1:]
        ]
        assert set(rows) == {head}


def test_it_adapts_to_a_phone_and_to_the_dark(html: str) -> None:
    assert 'content="width=device-width, initial-scale=1"' in html
    assert "prefers-color-scheme: dark" in html and "max-width: 40rem" in html


def test_equal_records_give_equal_bytes(html: str) -> None:
    assert to_html(build(sample_records()[::-1], expected=expected())) == html


def test_marks_verdicts_failures_and_explanations_are_on_the_page(html: str) -> None:
    words = " ".join(Page(html).words)
    for text in ("preview", "incomplete, 8/10", "not reproduced", "reproduced", "not comparable", "Failed runs",
                 "gkdbench run --only 4:4", "Missing runs", "amazon-photo", "Separate table: threads 2",
                 "abc1234"):  # fmt: skip
        assert text in words
    for cell in CELLS:
        assert cell.meaning in words


def test_whatever_a_record_says_is_escaped() -> None:
    sage = teacher(label=NASTY)
    taught = record("glnn", NASTY, teachers=teacher_of(sage), dataset="cora", failed={(0, 0): "error"})
    noted = record(NASTY, NASTY, runs=TEN[:2], dataset=NASTY, split=NASTY, columns=[NASTY])
    page = to_html(build([sage, taught, noted]), title=NASTY)
    assert "<script" not in page and page.count("&lt;script&gt;") > 10
    Page(page)


def test_an_empty_board_is_a_page_too() -> None:
    Page(to_html(build([])))


def test_markup_escapes_text_and_attributes_and_keeps_markup() -> None:
    assert tag("p", "a<b", tag("b", "&"), None, [1, Markup("<i></i>")], title='"<') == (
        '<p title="&quot;&lt;">a&lt;b<b>&amp;</b>1<i></i></p>'
    )
    assert tag("td", class_=None, aria_label="x") == '<td aria-label="x"></td>'
    assert join("<", Markup("<br>")) == "&lt;<br>"


def test_rows_of_more_than_one_origin_are_said() -> None:
    one, *_ = sample_records()
    origins = [Provenance(torch="2.1", git_commit="a"), Provenance(torch="2.2", git_commit="a")]
    rows = [row.model_copy(update={"provenance": at % 2}) for at, row in enumerate(one.rows)]
    mixed = one.model_copy(update={"provenances": origins, "rows": rows})
    (line,) = build([mixed]).mixed
    assert line.startswith(one.label) and line.endswith(": 2 of torch")
    assert "1 of 1 records have rows of more than one origin" in to_html(build([mixed]))
    alike = [row.model_copy(update={"provenance": 0}) for row in one.rows]
    assert "more than one origin" not in to_html(build([mixed.model_copy(update={"rows": alike})]))
