"""Across data sets: one row a method whatever its sizes, options under it, ranks over the sets that a suite names."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from support.checkout import ROOT
from support.records_factory import record, sha, teacher, teacher_of

from gkdbench.records.schema import Record
from gkdbench.report import build
from gkdbench.report.markdown import to_markdown
from gkdbench.report.model import Summary
from gkdbench.report.ranksets import rank_tables
from gkdbench.report.rownames import row_name

SAGE = teacher()
SPLIT = "cpf-lcc-20-30"


def on(dataset: str, method: str, label: str, mean: float, *, taught: bool = True, **fields: Any) -> Record:
    teachers = {"teachers": teacher_of(SAGE)} if taught else {}
    made = record(method, label, dataset=dataset, split=SPLIT, mean=mean, **teachers, **fields)
    return made.model_copy(update={"key": sha(f"{dataset} {label}")})


def sample() -> list[Record]:
    """RbM and GLNN on two sets, in sizes of their own; an option of RbM; a row on one set alone."""
    return [
        on("cora", "rbm", "RbM, 3 of 4 experts, 3x512", 0.82),
        on("pubmed", "rbm", "RbM, 2 of 7 experts, 2x256", 0.75),
        on("cora", "rbm", "RbM, 3 of 4 experts, 3x512, frozen memories", 0.83),
        on("pubmed", "rbm", "RbM, 2 of 7 experts, 2x256, frozen memories", 0.74),
        on("cora", "rbm", "RbM + reliable sampling, 3 of 4 experts, 3x512", 0.84),
        on("cora", "glnn", "GLNN, MLP 2x128", 0.81),
        on("pubmed", "glnn", "GLNN, MLP 2x128", 0.76),
        on("cora", "krd", "KRD, MLP 3x1024", 0.80),
        on("cora", "mlp", "MLP 2x128", 0.6, taught=False),
    ]


def summary(records: list[Record]) -> Summary:
    return next(s for s in build(records).summaries if s.title == "Taught by SAGE 2x128")


def ranks(found: Summary) -> dict[str, float]:
    return {row.name: row.rank.average for row in found.rows if row.rank}


@pytest.mark.parametrize(
    ("label", "plain", "sizes"),
    [
        ("RbM, 3 of 4 experts, 3x512, frozen memories", "RbM, frozen memories", "3 of 4 experts, 3x512"),
        ("GAT 2x128 (8 heads)", "GAT", "2x128 (8 heads)"),
        ("MLP with the parameters of RBM 3x512", "MLP with the parameters of RBM", "3x512"),
        ("MLP 2x128 + DeepWalk", "MLP + DeepWalk", "2x128"),
        ("GML-R, temperature, beta 0.01, GIN 3x64 + GCN 3x64", "GML-R, temperature, beta 0.01", "GIN 3x64 + GCN 3x64"),
        ("BGNN-R, GCN 2x64 to SAGE 2x64", "BGNN-R", "GCN 2x64 to SAGE 2x64"),
        ("best of GCN and SAGE (lr=0.01, epochs=200)", "best of GCN and SAGE (lr=0.01, epochs=200)", ""),
    ],
)
def test_a_label_comes_apart_into_name_and_sizes(label: str, plain: str, sizes: str) -> None:
    found = row_name(label, "single")
    assert (found.plain, found.sizes) == (plain, sizes)


def test_a_method_is_one_row_whatever_its_sizes_and_options_stand_under_it() -> None:
    found = summary(sample())
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [
        "GLNN, MLP 2x128", "RbM", "RbM + reliable sampling, 3 of 4 experts, 3x512", "RbM, frozen memories",
        "KRD, MLP 3x1024", "MLP 2x128",
    ]  # fmt: skip
    assert rows["RbM"].sizes == ("3 of 4 experts, 3x512", "2 of 7 experts, 2x256") and all(rows["RbM"].entries)
    assert rows["RbM, frozen memories"].parent == "RbM" and rows["RbM, frozen memories"].rank is None
    assert rows["RbM + reliable sampling, 3 of 4 experts, 3x512"].parent == "RbM"
    assert ranks(found) == {"RbM": 1.5, "GLNN, MLP 2x128": 1.5}
    assert found.said == "Ranks: 2 rows complete on these 2 sets (cora, pubmed), 2 are not."
    text = to_markdown(build(sample()))
    assert "| ↳ RbM, frozen memories | 83.00 ± 1.00, 3 of 4 experts, 3x512 |" in text


def test_ranks_depend_on_neither_names_nor_order() -> None:
    records = sample()
    found = ranks(summary(records))
    assert ranks(summary(records[::-1])) == found
    renamed = [r.model_copy(update={"label": r.label.replace("GLNN", "Aardvark")}) for r in records]
    assert ranks(summary(renamed)) == {name.replace("GLNN", "Aardvark"): rank for name, rank in found.items()}


def test_a_further_data_set_that_only_other_methods_have_changes_no_rank() -> None:
    further = [on("citeseer", "krd", "KRD, MLP 2x512", 0.9), on("citeseer", "nosmog", "NOSMOG, MLP 2x128", 0.8)]
    found = summary([*sample(), *further])
    assert found.datasets == ("citeseer", "cora", "pubmed") and found.rank_sets == ("cora", "pubmed")
    assert ranks(found) == ranks(summary(sample()))


def test_one_complete_row_has_no_rank() -> None:
    records = [r for r in sample() if r.method != "glnn"]
    found = summary(records)
    assert not ranks(found) and found.said.startswith("No ranks: 1 of 3 rows complete on these 2 sets")
    assert found.test is None


def test_two_widths_on_one_data_set_are_two_rows() -> None:
    found = summary([*sample(), on("cora", "glnn", "GLNN, MLP 2x512", 0.85)])
    assert {"GLNN, MLP 2x128", "GLNN, MLP 2x512"} <= {row.name for row in found.rows}


def test_sets_of_ranks_are_those_that_the_suites_name() -> None:
    for named in rank_tables():
        suite = tomllib.loads((ROOT / "suites" / f"{named['suite']}.toml").read_text(encoding="utf-8"))
        for split in named["splits"]:
            core = [grid for grid in suite["grid"] if grid["tier"] == "core" and split in grid["splits"]]
            assert {name for grid in core for name in grid["datasets"]} == set(named["datasets"]), (
                named["suite"],
                split,
            )
