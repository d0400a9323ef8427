"""Claims against records: pairs, pooled estimates, verdicts by their rules, the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.records_factory import TEN, record

from gkdbench.errors import UserError
from gkdbench.records.key import TRIAL
from gkdbench.records.schema import Record
from gkdbench.report.claimcheck import check, check_all
from gkdbench.report.claimfile import ClaimTest, Figure, Side
from gkdbench.report.claimpage import _readings, claim_page, write_pages

SETS = ("cora", "pubmed")


ROWS = {
    "rbm": Side(name="RbM", method="rbm", config={"model": {"routing": "memory"}}),
    "glnn": Side(name="GLNN", method="glnn"),
    "moe": Side(name="MoE", method="moe"),
}
IN_TOML = (
    "[row.rbm]\nname = 'RbM'\nmethod = 'rbm'\n[row.glnn]\nname = 'GLNN'\nmethod = 'glnn'\n"
    "[row.moe]\nname = 'MoE'\nmethod = 'moe'\n"
)


def claim(test: str = "better", sets: tuple[str, ...] = SETS) -> ClaimTest:
    return ClaimTest.model_validate(
        {
            "says": "RbM is better",
            "source": "the paper",
            "reads": "higher accuracy.",
            "test": test,
            "candidate": "rbm",
            "against": ["glnn", "moe"],
            "datasets": list(sets),
            "splits": ["planetoid-public"],
            "settings": ["tran", "ind"],
        }
    )


def rbm(**fields: object) -> object:
    return record("rbm", "RbM", config={"model": {"routing": "memory", "k": 3}}, **fields)  # type: ignore[arg-type]


def rows(gain: float, dataset: str, **fields: object) -> list:  # type: ignore[type-arg]
    others = [record("glnn", "GLNN", mean=0.7, dataset=dataset), record("moe", "MoE", mean=0.6, dataset=dataset)]
    return [rbm(mean=0.7 + gain, dataset=dataset, **fields), *others]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.02, 0.02), "supported"),
        ((0.02, 0.0), "supported"),
        ((0.0, 0.0), "undecided"),
        ((-0.02, 0.0), "contradicted"),
        ((0.001, 0.0015), "supported"),
    ],
)
def test_verdicts_follow_the_pooled_estimate_of_every_rival(gains: tuple[float, float], verdict: str) -> None:
    found = check(claim(), ROWS, [r for gain, name in zip(gains, SETS, strict=True) for r in rows(gain, name)])
    glnn, moe = found.rivals
    assert (glnn.rival, moe.rival) == ("GLNN", "MoE") and glnn.pooled.said == "2 places, 10 shared runs"
    mean = sum(gains) / 2
    assert glnn.estimate.difference == (pytest.approx(mean) if mean else None)
    assert moe.estimate.difference == pytest.approx(mean + 0.1)
    assert len(found.lines) == 4 and found.verdict == verdict
    assert [line.tested for line in found.lines] == [glnn.estimate.outcome in ("better", "worse"), True] * 2


def test_a_page_is_one_family_and_places_are_tested_only_for_rivals_that_passed() -> None:
    records = [r for name in SETS for r in rows(0.02, name)]
    alone, page = check(claim(), ROWS, records), check_all([claim(), claim("steadier")], ROWS, records)
    assert page[0].verdict == alone.verdict == "supported"
    assert [of.estimate.test for of in page[0].rivals] == [of.estimate.test for of in alone.rivals]
    assert not any(line.tested for line in page[1].lines)


def test_parts_answer_one_claim_with_rows_of_their_own() -> None:
    part = {"candidate": "rbm", "against": ["moe", "glnn"], "places": ["pubmed planetoid-public"], "settings": ["tran"]}
    data = claim(sets=("cora",)).model_dump() | {"part": [part], "settings": ["tran"]}
    found = check(ClaimTest.model_validate(data), ROWS, [r for name in SETS for r in rows(0.02, name)])
    assert [line.rival for line in found.lines] == ["GLNN", "MoE", "MoE", "GLNN"]
    first, second = found.rivals
    assert first.estimate.difference == pytest.approx((0.02 + 0.12) / 2)
    assert second.estimate.difference == pytest.approx((0.02 + 0.12) / 2)
    with pytest.raises(ValueError, match="expected 2 rivals in every part, got 1"):
        ClaimTest.model_validate(data | {"part": [part | {"against": ["moe"]}]})


def test_consistent_compares_the_worst_regret_over_places() -> None:
    """RbM leads by 2 points on cora and trails by 2 on pubmed; its worst regret is 2, GLNN's is 2, MoE's is 12."""
    found = check(claim("consistent"), ROWS, [*rows(0.02, "cora"), *rows(-0.02, "pubmed")])
    _, moe = found.rivals
    assert not found.lines and found.regrets == pytest.approx({"RbM": 0.02, "GLNN": 0.02, "MoE": 0.12})
    assert moe.estimate.difference == pytest.approx(0.1) and moe.estimate.better and found.verdict == "undecided"


def test_places_that_share_no_run_are_a_sentence() -> None:
    def later(made: Record) -> Record:
        moved = [row.model_copy(update={"index": row.index + 50, "seed": row.seed + 50}) for row in made.rows]
        return made.model_copy(update={"rows": moved})

    found = check(claim(), ROWS, [*rows(0.02, "cora"), *map(later, rows(0.02, "pubmed"))])
    assert found.verdict == "undecided" and {of.pooled.said for of in found.rivals} == {"the 2 places share no run"}
    assert all(of.estimate.test is None for of in found.rivals)


def test_what_is_missing_leaves_a_claim_undecided() -> None:
    one = rows(0.02, "cora")
    assert check(claim(), ROWS, one).absent == ("anything on pubmed, planetoid-public",)
    assert check(claim(sets=("cora",)), ROWS, one[:2]).absent == ("MoE on cora, planetoid-public, tran",)
    few = [rbm(mean=0.8, runs=TEN[:8]), *one[1:]]
    assert {check(claim(), ROWS, one).verdict, check(claim(sets=("cora",)), ROWS, few).verdict} == {"undecided"}
    assert check(claim(sets=("cora",)), ROWS, one).verdict == "supported"


def test_places_name_sets_that_share_no_split() -> None:
    records = [*rows(0.02, "cora"), *rows(0.02, "pubmed")]
    places = ["cora planetoid-public", "pubmed planetoid-public"]
    data = claim().model_dump() | {"datasets": [], "splits": [], "places": places}
    assert check(ClaimTest.model_validate(data), ROWS, records).lines == check(claim(), ROWS, records).lines
    for wrong in ({"places": []}, {"datasets": ["cora"]}):
        with pytest.raises(ValueError, match="is tested nowhere"):
            ClaimTest.model_validate(data | wrong)
    with pytest.raises(ValueError, match="match pattern"):
        ClaimTest.model_validate(data | {"places": ["cora"]})


def test_steadier_compares_deviations_and_not_means() -> None:
    calm = [rbm(mean=0.5, std=0.001), record("glnn", "GLNN", mean=0.9, std=0.05), record("moe", "MoE", std=0.04)]
    found = check(claim("steadier", ("cora",)), ROWS, calm)
    assert found.verdict == "supported"
    wild = [rbm(mean=0.9, std=0.05), record("glnn", "GLNN", std=0.001), record("moe", "MoE", std=0.002)]
    assert check(claim("steadier", ("cora",)), ROWS, wild).verdict == "contradicted"


def test_a_side_that_fits_two_records_is_refused() -> None:
    twice = [record("glnn", "GLNN", config={"tau": tau}) for tau in (1, 2)]
    with pytest.raises(UserError, match="'GLNN' fits several records on cora, planetoid-public"):
        Side(name="GLNN", method="glnn").find(twice, "cora", "planetoid-public", "tran")
    assert Side(name="GLNN", method="glnn", config={"tau": 2}).find(twice, "cora", "planetoid-public", "tran")


def test_a_row_without_an_option_is_not_the_row_that_has_it() -> None:
    """Records leave options out at their default: a row names the fields that it must not have."""
    plain = rbm(mean=0.7)
    sampled = record("rbm", "RbM + reliable sampling", config={"model": {"routing": "memory"}, "reliable": True})
    both: list[Record] = [plain, sampled]  # type: ignore[list-item]
    without = Side(name="RbM", method="rbm", off=["reliable"])
    with_it = Side(name="RbM", method="rbm", config={"reliable": True})
    found = [side.find(both, "cora", "planetoid-public", "tran") for side in (without, with_it)]
    assert [row.name for row in found if row] == ["RbM", "RbM + reliable sampling"]
    with pytest.raises(UserError, match="fits several records"):
        Side(name="RbM", method="rbm").find(both, "cora", "planetoid-public", "tran")


def test_tuned_rows_and_their_trials_are_not_published_ones() -> None:
    published, tuned = record("glnn", "GLNN"), record("glnn", "GLNN", tier="tuned")
    trial = record("glnn", "GLNN", tuning=TRIAL, device="trial")
    found = Side(name="GLNN", method="glnn").find([published, tuned, trial], "cora", "planetoid-public", "tran")
    assert found is not None and found.key == published.key
    of_tuned = Side(name="GLNN", method="glnn", tier="tuned")
    found = of_tuned.find([published, tuned, trial], "cora", "planetoid-public", "tran")
    assert found is not None and found.key == tuned.key
    more = record("glnn", "GLNN", tier="tuned", trials=40, device="more")
    with pytest.raises(UserError, match="fits several records"):
        of_tuned.find([tuned, more], "cora", "planetoid-public", "tran")
    of_more = Side(name="GLNN", method="glnn", tier="tuned", trials=40)
    found = of_more.find([tuned, more], "cora", "planetoid-public", "tran")
    assert found is not None and found.key == more.key


def test_the_page_states_claim_numbers_and_verdict(tmp_path: Path) -> None:
    page = tmp_path / "rbm.toml"
    page.write_text(
        "title = 'RbM'\nintro = 'What it says.'\n"
        + IN_TOML
        + "[[claim]]\nsays = 'RbM is better'\nsource = 'the paper'\n"
        "reads = 'higher.'\ndatasets = ['cora', 'pubmed']\nsplits = ['planetoid-public']\nsettings = ['tran']\n"
        "candidate = 'rbm'\nagainst = ['glnn', 'moe']\n"
    )
    records = [r for name in SETS for r in rows(0.02, name)]
    text, plots = claim_page(page, records)
    assert "| 1 | RbM is better | **supported** | 2 | GLNN +2.00 better; MoE +12.00 better | 10 |" in text
    assert "| cora · planetoid-public · tran | 72.00 | GLNN | 70.00 | +2.00 |" in text
    opening = text.split("\n\n")[1]
    assert opening.startswith("Claims: 1, of which these records support 1, contradict 0 and leave 0 undecided.")
    assert "Believe claim 1 (RbM is better)." in opening
    assert list(plots) == ["rbm-1.svg"] and plots["rbm-1.svg"].startswith("<svg")
    assert "carry a flag" not in text
    flagged = [r.model_copy(update={"flags": ["idle_expert"]}) if r.seed < 4 else r for r in records[0].rows]
    text, _ = claim_page(page, [records[0].model_copy(update={"rows": flagged}), *records[1:]])
    assert "carry a flag: RbM on cora, planetoid-public, tran: 4 idle expert of 10." in text
    for old in ("rbm-7.svg", "rbm-ablation-1.svg", "rbm-notes.svg"):
        (tmp_path / old).write_text("<svg/>")
    assert write_pages(tmp_path, records) == [tmp_path / "rbm.md"]
    assert sorted(file.name for file in tmp_path.glob("*.svg")) == ["rbm-1.svg", "rbm-ablation-1.svg", "rbm-notes.svg"]
    whole = page.read_text()
    page.write_text("study = 'widths'\n" + whole)
    assert "Not run yet, so undecided" in claim_page(page, records)[0]
    of_study = claim_page(page, [], None, lambda name: (records if name == "widths" else [], lambda record: {}))[0]
    assert "| 1 | RbM is better | **supported** | 2 |" in of_study
    page.write_text(whole.replace("against = ['glnn', 'moe']", "against = ['gln']"))
    with pytest.raises(UserError, match="no row 'gln'; did you mean 'glnn'"):
        claim_page(page, records)
    page.write_text("title = 'x'\nintro = 'y'\nclaims = 3\n")
    with pytest.raises(UserError, match="claims: expected no such key, got 3"):
        claim_page(page, records)


def test_a_figure_shows_readings_that_every_run_has(tmp_path: Path) -> None:
    page = tmp_path / "rbm.toml"
    page.write_text(
        "title = 'RbM'\nintro = ''\n"
        + IN_TOML
        + "[[claim]]\nsays = 'a'\nsource = 'b'\nreads = 'c.'\ndatasets = ['cora']\n"
        "splits = ['planetoid-public']\nsettings = ['tran']\ncandidate = 'rbm'\nagainst = ['glnn']\n"
        "[[figure]]\nsays = 'Where rows go'\nreads = 'Shares.'\nrows = ['rbm']\n"
        "readings = { load = 'first expert', drift = 'drift' }\ndataset = 'cora'\nsplit = 'planetoid-public'\n"
        "setting = 'tran'\n"
    )
    candidate = rows(0.02, "cora")[0]
    read = [row.model_copy(update={"extra": {"load": 0.25 + row.seed / 100}}) for row in candidate.rows]
    read[3] = read[3].model_copy(update={"extra": read[3].extra | {"drift": 1.0}})
    records = [candidate.model_copy(update={"rows": read}), *rows(0.02, "cora")[1:]]
    text, plots = claim_page(page, records)
    assert "## Where rows go\n\nShares.\n\n![" in text
    assert "RbM: first expert" in plots["rbm-figure-1.svg"] and "0.295 [" in plots["rbm-figure-1.svg"]
    assert "drift" not in plots["rbm-figure-1.svg"]


def test_a_ranked_figure_shows_the_largest_reading_of_each_run_first() -> None:
    candidate = rows(0.02, "cora")[0]
    shares = [{"load_0": 0.7, "load_1": 0.3}, {"load_0": 0.2, "load_1": 0.8}] * 5
    read = [row.model_copy(update={"extra": s}) for row, s in zip(candidate.rows, shares, strict=True)]
    place = {"dataset": "cora", "split": "planetoid-public", "setting": "tran"}
    shown = {"says": "", "reads": "", "rows": ["rbm"], "readings": {"load_0": "first", "load_1": "last"}, **place}
    record_ = candidate.model_copy(update={"rows": read})
    ranked, plain = (_readings(Figure(**shown, ranked=ranked), ROWS, [record_]) for ranked in (True, False))
    assert [round(one.value, 6) for one in ranked] == [0.75, 0.25]
    assert [round(one.value, 6) for one in plain] == [0.45, 0.55]
