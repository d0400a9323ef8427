"""Published rows counted: every row has a line, marked ones and unchecked ones apart, paragraphs where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.records_factory import MLP_SETTINGS, TEN, record, teacher, teacher_of

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report.board import build
from gkdbench.report.published import claims
from gkdbench.report.reproduction import PublishedGroup, counts_text, lines_of, load_page, numbers, reproduction_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproduction.toml"
CLAIMS = {claim.name: claim for claim in claims()}
PLAIN = 'title = "T"\nintro = "I"\n[[group]]\nsays = "MLPs"\nclaims = ["VQGraph Table 1, MLP"]\nreproduced = 0.6\n'


def mlp(dataset: str, mean: float, **fields: Any) -> Record:
    defaults: dict[str, Any] = {"split": "cpf-lcc-20-30", "variant": "as_released", "config": MLP_SETTINGS, "std": 0.01}
    return record("mlp", "MLP 2x128", dataset=dataset, mean=mean, **defaults | fields)


def krd(mean: float) -> Record:
    taught = teacher_of(teacher(split="cpf-lcc-20-30"))
    config = {**MLP_SETTINGS, "teacher_recipe": None}
    return record("krd", "KRD", split="cpf-lcc-20-30", mean=mean, teachers=taught, config=config)


def group(**fields: Any) -> PublishedGroup:
    return PublishedGroup.model_validate({"says": "MLPs", "claims": ["VQGraph Table 1, MLP"], **fields})


def test_the_page_of_this_repository_has_all_sixty_six_rows() -> None:
    rows = [row for name in load_page(PAGE).group[0].claims for row in numbers(CLAIMS[name])]
    assert len(rows) == len(set(rows)) == 66
    assert {method: sum(row.method == method for row in rows) for method in {row.method for row in rows}} == {
        "MLP": 20,
        "GLNN": 21,
        "GraphSAGE (teacher)": 20,
        "NOSMOG": 5,
    }
    assert not any("not re-checked" in row.verified for row in rows)


def test_every_row_has_a_line() -> None:
    board = build([mlp("cora", 0.5918), mlp("pubmed", 0.60), mlp("citeseer", 0.585, runs=TEN[:9])])
    lines = {line.published.dataset: line for line in lines_of(group(), board)}
    assert {name: line.status for name, line in lines.items()} == {
        "cora": "reproduced",
        "pubmed": "not reproduced",
        "citeseer": "not run",
        "amazon-computers": "not run",
        "amazon-photo": "not run",
    }
    assert lines["citeseer"].why == "9 runs; 10 are needed"


def test_the_corrected_form_answers_no_published_row() -> None:
    board = build([mlp("cora", 0.5918, variant="corrected")])
    assert {line.status for line in lines_of(group(), board)} == {"not run"}


def test_unchecked_rows_are_graded_in_their_own_group_only() -> None:
    board = build([krd(0.8227)])
    name = {"claims": ["KRD re-run by G2MLP"]}
    apart = [line.status for line in lines_of(group(**name, unchecked=True), board)]
    assert (apart[0], set(apart[1:])) == ("reproduced", {"not run"})
    assert lines_of(group(**name), board)[0].status == "not run"
    assert [verdict.status for _, _, verdict in board.compared] == []


def test_a_refused_claim_is_never_compared() -> None:
    refused = lines_of(group(claims=["APPNP in ROD's table"]), build([mlp("cora", 0.59)]))
    assert {(line.status, line.graded) for line in refused} == {("not comparable", False)}


def test_counts_promises_marks_and_paragraphs(tmp_path: Path) -> None:
    board = build([mlp("cora", 0.5918), mlp("pubmed", 0.60)])
    file = tmp_path / "page.toml"
    file.write_text(PLAIN + 'marked = { pubmed = "other splits" }\n')
    assert counts_text(file, board).splitlines() == [
        "MLPs: 5 published rows, 2 compared: 1 reproduced, 1 not reproduced, 3 not run. Of the compared rows: "
        "reproduced 50% (target 60%: not met), reproduced or close 50%. Without the 1 marked ones: 100% and 100%.",
        "  no paragraph yet: VQGraph Table 1, MLP, pubmed, tran",
    ]
    text = reproduction_page(file, board)
    assert "| MLPs | 5 | 1 | 0 | 1 | 3 |" in text
    assert "| VQGraph Table 1, MLP | cora | tran | 59.18 ± 1.6 | 59.18 ± 1.00 | 10 | +0.00 |" in text
    assert "| pubmed\\* |" in text and "\\* pubmed: other splits" in text
    assert "- VQGraph Table 1, MLP, pubmed, tran: no paragraph yet." in text
    note = (
        '[[note]]\nclaim = "VQGraph Table 1, MLP"\ndatasets = ["pubmed"]\nsettings = ["tran"]\nsays = "two\\nlines"\n'
    )
    file.write_text(PLAIN + note)
    assert "- VQGraph Table 1, MLP, pubmed, tran: two lines" in reproduction_page(file, board)
    assert "no paragraph" not in counts_text(file, board)


def test_nothing_compared_is_said() -> None:
    assert "Nothing is compared yet." in counts_text(PAGE, build([mlp("digits-knn", 0.9)]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN.replace("Table 1", "Table 9"), "no claim 'VQGraph Table 9, MLP'"),
        (PLAIN + "colour = 1\n", "colour"),
        ("title =", "not valid TOML"),
    ],
)
def test_bad_pages(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "page.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        load_page(file)
    with pytest.raises(UserError, match="does not exist"):
        load_page(tmp_path / "none.toml")
