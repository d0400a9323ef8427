"""Published numbers, the claims that point to them, and docs/protocol.md, section 7 on both sides of every border."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.records_factory import MLP_SETTINGS, SGC, TEN, record, teacher, teacher_of

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report.entries import entries
from gkdbench.report.published import Claim, PublishedVerdict, claims, grade, published, verdict

SETTINGS = ("tran", "ind", "prod")
CLAIMS = {claim.name: claim for claim in claims()}


def only_verdict(made: Record, setting: str = "tran") -> PublishedVerdict:
    (found,) = entries(made, setting)[0].verdicts
    return found


def test_every_row_keeps_its_source_and_evidence() -> None:
    rows = published()
    assert len(rows) == 1023
    assert all(row.source and row.evidence and row.verified and row.split_protocol for row in rows)


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.name)
def test_every_claim_points_to_one_number_per_data_set_and_setting(claim: Claim) -> None:
    found = {(d, s): claim.number(d, s) for d in claim.datasets for s in (*SETTINGS, "graph")}
    assert {dataset for (dataset, _), number in found.items() if number} == set(claim.datasets)


def test_a_claim_that_fits_two_rows_is_refused() -> None:
    loose = replace(CLAIMS["SGC README"], published={"metric": "accuracy", "source": ""})
    with pytest.raises(UserError, match="narrow it"):
        loose.number("cora", "tran")


@pytest.mark.parametrize(
    ("name", "dataset", "setting", "mean"),
    [
        ("MuGSI Table 2, GIN", "proteins", "graph", 79.25), ("MuGSI Table 2, MLP+LaPE", "proteins", "graph", 75.92),
        ("MuGSI Table 2, GLNN (GA-MLP)", "proteins", "graph", 75.76),
        ("GCN (Kipf 2017)", "cora", "tran", 81.5), ("GCN (Kipf 2017)", "citeseer", "tran", 70.3),
        ("GAT (Velickovic 2018)", "citeseer", "tran", 72.5), ("GAT (Velickovic 2018)", "pubmed", "tran", 79.0),
        ("SGC README", "pubmed", "tran", 78.9), ("GLNN README", "cora-cpf", "prod", 78.28),
        ("GLNN README, teacher", "citeseer-cpf", "ind", 69.75), ("VQGraph Table 1, GLNN", "pubmed", "tran", 75.59),
        ("CPF README, teacher", "cora", "tran", 82.44),
    ],
)  # fmt: skip
def test_anchors(name: str, dataset: str, setting: str, mean: float) -> None:
    number = CLAIMS[name].number(dataset, setting)
    assert number is not None and number.mean == mean


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0.0, "reproduced"), (0.5, "reproduced"), (-0.5, "reproduced"), (0.51, "close"), (-1.0, "close"),
     (1.01, "not reproduced"), (-3.0, "not reproduced")],
)  # fmt: skip
def test_grades(difference: float, expected: str) -> None:
    assert grade(difference, 0.5) == expected


def test_tolerance_is_two_standard_errors_above_half_a_point() -> None:
    found = only_verdict(teacher("gcn", "GCN", "kipf2017_gcn", mean=0.80, std=0.012))
    expected = 2 * (1.2**2 / 10 + 1.2**2 / 100) ** 0.5  # no published spread: ours; 100 published runs
    assert (found.status, found.tolerance) == ("close", pytest.approx(expected))
    assert found.difference == pytest.approx(-1.5)
    tight = only_verdict(teacher("gcn", "GCN", "kipf2017_gcn", mean=0.812, std=0.001))
    assert (tight.status, tight.tolerance) == ("reproduced", 0.5)
    unknown_runs = only_verdict(record("sgc", "SGC", config=SGC, mean=0.81, std=0.01))
    assert unknown_runs.tolerance == pytest.approx(2 * (1 / 10 + 1 / 10) ** 0.5)


def _like(made: Record, **changes: Any) -> Record:
    return made.model_copy(update=changes)


def test_molecule_sets_and_tu_folds_have_a_floor_of_one_point() -> None:
    claim, made = CLAIMS["SGC README"], record("sgc", "SGC", config=SGC)
    number = claim.number("cora", "tran")
    assert number is not None
    scores = [0.81] * 10
    assert verdict(claim, number, made, scores, complete=True).tolerance == 0.5
    folds = _like(made, split="tu-10fold")
    assert verdict(claim, number, folds, scores, complete=True).tolerance == 1.0
    ranked = _like(made, data=made.data.model_copy(update={"metric": "rocauc"}))
    assert verdict(claim, replace(number, metric="ROC-AUC"), ranked, scores, complete=True).tolerance == 1.0


def test_a_single_published_run_has_a_fixed_tolerance() -> None:
    found = only_verdict(teacher("gcn", "GCN 2x64", mean=0.834, std=0.02, split="cpf-lcc-20-30/seed0"))
    assert (found.status, found.tolerance) == ("reproduced", 1.0)


def test_the_peak_is_compared_where_the_publication_scores_it() -> None:
    claim, made = CLAIMS["SGC README"], record("sgc", "SGC", config=SGC)
    number = claim.number("cora", "tran")
    assert number is not None
    peak = replace(claim, score="peak")
    assert verdict(peak, number, made, [0.82] * 10, complete=True).why == "peak score"


SAGE_IND = teacher(split="cpf-lcc-20-30-ind20", setting="ind", columns=SETTINGS)


def _glnn(**fields: Any) -> Record:
    defaults: dict[str, Any] = {
        "split": "cpf-lcc-20-30-ind20", "setting": "ind", "columns": SETTINGS, "variant": "as_released", "mean": 0.7828,
        "teachers": teacher_of(SAGE_IND),
    }  # fmt: skip
    return record("glnn", "GLNN", **defaults | fields)


def test_the_released_form_under_its_teacher_is_compared_in_every_setting() -> None:
    assert [only_verdict(_glnn(), setting).published.mean for setting in SETTINGS] == [79.39, 73.82, 78.28]
    assert only_verdict(_glnn(), "prod").status == "reproduced"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (_glnn(variant="corrected"), "corrected form"),
        (_glnn(teachers={}), "no teacher"),
        (_glnn(teachers=teacher_of(teacher("gat", "GAT 8x16"))), "other teacher, GAT 8x16: backbone='gat'"),
        (_glnn(teachers=teacher_of(teacher(recipe="release"))), "recipe='release'"),
        (_glnn(config=MLP_SETTINGS | {"epochs": 5}), "epochs=5, published 500"),
        (_glnn(config=MLP_SETTINGS | {"model": {"hidden": 8, "layers": 2}}), "model.hidden=8"),
        (_glnn(tier="tuned"), "tuned by us"),
        (_glnn(metric="micro_f1"), "metric micro_f1"),
        (_glnn(runs=TEN[:9]), "9 runs; 10 are needed"),
        (_glnn(failed={(3, 3): "nan"}), "incomplete: 9 runs"),
        (teacher("appnp", "APPNP 2x128"), "does not state its configuration"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_condition_of_a_comparison(made: Record, why: str) -> None:
    found = only_verdict(made)
    assert found.status == "not comparable" and why in found.why
    assert found.difference is None and found.tolerance is None


def test_another_split_or_data_set_has_no_published_number() -> None:
    assert entries(record("sgc", "SGC", config=SGC, split="random-20-500-1000"), "tran")[0].verdicts == ()
    assert entries(record("sgc", "SGC", config=SGC, dataset="digits-knn"), "tran")[0].verdicts == ()
    assert entries(_glnn(split="cpf-lcc-20-30-ind10"), "tran")[0].verdicts == ()


def test_five_runs_suffice_where_the_publication_used_five_and_untrusted_numbers_never_do() -> None:
    claim, made = CLAIMS["SGC README"], record("sgc", "SGC", config=SGC)
    number = claim.number("cora", "tran")
    assert number is not None
    five = replace(number, n_runs=5)
    assert verdict(claim, five, made, [0.81] * 5, complete=True).status == "reproduced"
    assert verdict(claim, five, made, [0.81] * 4, complete=True).status == "not comparable"
    for doubtful in (replace(number, evidence="recalled"), replace(number, verified="not re-checked (second hand)")):
        assert verdict(claim, doubtful, made, [0.81] * 10, complete=True).status == "not comparable"
