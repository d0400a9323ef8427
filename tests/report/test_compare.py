"""Two methods, paired run by run; and what may not be paired."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.records_factory import TEN, record, sha, teacher, teacher_of

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report import compare
from gkdbench.report.overlap import overlap_ratio
from gkdbench.report.statistics import sign_flip

PLACES = ("cora", "citeseer", "pubmed")


def uneven(**fields: object) -> Record:
    """A record whose runs differ from the factory's by more than a shift."""
    made = record("glnn", "GLNN", **fields)  # type: ignore[arg-type]
    rows = []
    for k, row in enumerate(made.rows):
        value = row.models[0].scores["tran"]
        score = value.model_copy(update={"value": value.value + 0.004 * ((k * 7) % 5)})
        rows.append(row.model_copy(update={"models": [row.models[0].model_copy(update={"scores": {"tran": score}})]}))
    return made.model_copy(update={"rows": rows})


def test_a_line_holds_the_statistics_of_its_pairs() -> None:
    one, two = uneven(mean=0.61, split="cpf-lcc-20-30"), record(mean=0.6, split="cpf-lcc-20-30")
    (line,) = compare([one], [two]).lines
    gains = [
        a.models[0].scores["tran"].value - b.models[0].scores["tran"].value
        for a, b in zip(one.rows, two.rows, strict=True)
    ]
    assert line.difference == pytest.approx(np.mean(gains)) and line.std == pytest.approx(np.std(gains, ddof=1))
    assert line.p_value == line.p_family == 2 / 2**10 and line.outcome == line.said == "better" and not line.preview
    ratio = one.rows[0].models[0].scores["tran"].n / (20 * one.data.classes)  # of twenty labels a class
    assert line.t_test is not None
    assert line.t_test[0] == pytest.approx(np.mean(gains) / math.sqrt((0.1 + ratio) * np.var(gains, ddof=1)))
    assert line.interval == sign_flip(gains).interval and line.extend is None
    again = [row.model_copy(update={"index": 0}) for row in one.rows]
    assert overlap_ratio(one.model_copy(update={"rows": again}), "tran") is None  # one split: nothing overlaps


def test_sides_swap_and_the_family_is_all_lines() -> None:
    first = [uneven(mean=0.61, dataset=name) for name in PLACES]
    second = [record(mean=0.6, dataset=name) for name in PLACES[:2]] + [record(mean=0.9, dataset="pubmed")]
    forth, back = compare(first, second), compare(second, first)
    assert forth.tally == {"better": 2, "worse": 1} and back.tally == {"better": 1, "worse": 2}
    for a, b in zip(forth.lines, back.lines, strict=True):
        assert a.difference == -b.difference and a.p_family == b.p_family == 2 / 2**10


def test_runs_without_a_partner_are_counted_and_make_a_preview() -> None:
    (line,) = compare([record("glnn", "GLNN", failed={(3, 3): "nan"})], [record()]).lines
    assert (line.pairs, line.unpaired, line.preview, line.outcome) == (9, 1, True, None)
    with pytest.raises(UserError, match="no scored run in common"):
        compare([uneven(runs=TEN[:2])], [record(runs=TEN[5:])])


def test_twins_are_a_sentence_and_no_number() -> None:
    (line,) = compare([record(label="again")], [record()]).lines
    assert (line.outcome, line.p_value, line.difference, line.interval) == (None, None, None, None)
    assert line.said == "the same score in every run, nothing to test" and line.said in line.texts


def test_one_shared_run_is_a_sentence_and_few_have_an_open_interval() -> None:
    (line,) = compare([uneven(runs=TEN[:1], mean=0.7)], [record(runs=TEN[:1])]).lines
    assert line.said == "not compared: expected two or more shared runs, got 1" and line.p_value is None
    (line,) = compare([uneven(runs=TEN[:4], mean=0.7)], [record(runs=TEN[:4])]).lines
    assert line.interval == (None, None) and "[-∞, +∞]" in line.texts[4] and line.said == "preview, 4 runs"


SAGE, GAT = teacher(), teacher("gat", "GAT 8x16")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([record()], [record(split="cpf-lcc-20-30")], "no data set, split id and setting in common"),
        ([], [record()], "nothing"),
        ([record(), record(label="MLP 2")], [record()], "two records"),
        ([record()], [record(label="b", data_sha256="e" * 64)], "differ in data"),
        ([record()], [record(label="b", threads=2)], "differ in threads"),
        ([record()], [record(label="b", tier="tuned")], "differ in tier"),
        ([record("glnn", "GLNN", teachers=teacher_of(SAGE))], [record("kd", "KD", teachers=teacher_of(GAT))],
         r"different teachers \(SAGE 2x128; GAT 8x16\)"),
    ],
)  # fmt: skip
def test_what_may_not_be_paired(first: list[Record], second: list[Record], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(first, second)


def test_one_teacher_means_its_weights_in_every_run() -> None:
    one, two = (record(name, name.upper(), teachers=teacher_of(SAGE)) for name in ("glnn", "kd"))
    assert compare([one], [two]).lines
    moved = two.rows[4].model_copy(update={"teachers": {"teacher": sha("retrained")}})
    two = two.model_copy(update={"rows": [*two.rows[:4], moved, *two.rows[5:]]})
    with pytest.raises(UserError, match="different teachers"):
        compare([one], [two])


def test_a_student_and_a_row_trained_alone_are_compared() -> None:
    assert (
        compare([record("glnn", "GLNN", mean=0.7, teachers=teacher_of(SAGE))], [record()]).lines[0].outcome == "better"
    )


def test_text_names_both_sides_and_every_line() -> None:
    done = compare([uneven(mean=0.61, dataset=name) for name in PLACES], [record(dataset=name) for name in PLACES])
    text = done.to_text(width=140)
    assert "GLNN against MLP 2x128" in text and "3 better, 0 equal, 0 not resolved, 0 worse" in text
    assert all(f"{name} · planetoid-public · tran" in text for name in PLACES) and "[+" in text
