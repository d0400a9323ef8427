"""Sweeps on a page: what is averaged at each level, what is compared, and that a swept twin is no second row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.records_factory import TEN, record

from gkdbench.errors import UserError
from gkdbench.records.key import identity_of
from gkdbench.records.schema import CorruptedResult, Record
from gkdbench.report.claimfile import Side, SweepFigure
from gkdbench.report.claimpage import claim_page
from gkdbench.report.loading import without_repeats
from gkdbench.report.sweeps import at_level, panels, sweep_table

SIDES = {
    "a": Side(name="ALONE", method="dml", config={"lam": 0.0}, aggregate="mean of peers"),
    "b": Side(name="BOTH", method="dml", config={"lam": 1.0}, aggregate="mean of peers"),
    "e": Side(name="ENSEMBLE", method="dml", config={"lam": 1.0}, aggregate="ensemble"),
}
PAGE = """
title = "T"
intro = "I"
[row.a]
name = "ALONE"
method = "dml"
config = { lam = 0.0 }
aggregate = "mean of peers"
[row.b]
name = "BOTH"
method = "dml"
config = { lam = 1.0 }
aggregate = "mean of peers"
[[claim]]
says = "better"
source = "s"
reads = "r"
candidate = "b"
against = ["a"]
datasets = ["cora"]
splits = ["planetoid-public"]
settings = ["tran"]
[[sweep]]
says = "Noise"
reads = "What noise is."
kind = "feature_noise"
rows = ["b", "a"]
dataset = "cora"
split = "planetoid-public"
setting = "tran"
"""


def plain(lam: float) -> Record:
    found = record("dml", f"DML {lam:g}", mean=0.8, std=0.0, peers=2, ensemble=True, config={"lam": lam}, runs=TEN)
    return found.model_copy(update={"key": identity_of(found).key})


def swept(lam: float, lost: float, levels: tuple[float, ...] = (0.5,)) -> Record:
    """Peers lose `lost` at level 0.5, twice that at level 1, and 0.001 more with every seed; peer1 0.02 beside."""
    found = plain(lam)
    rows = []
    for row in found.rows:
        steps = []
        for kind, level in [("clean", 0.0), *(("feature_noise", level) for level in levels)]:
            value = 0.8 - 2 * level * (lost + 0.001 * row.seed)
            steps.append(
                CorruptedResult(
                    kind=kind,  # type: ignore[arg-type]
                    level=level,
                    scores={"peer0": {"tran": value}, "peer1": {"tran": value - 0.02}, "ensemble": {"tran": 0.9}},
                    ece={"peer0": {"tran": 0.1}, "peer1": {"tran": 0.3}, "ensemble": {"tran": 0.05}},
                    disagreement={"peer0-peer1": {"tran": level / 4}},
                )
            )
        rows.append(row.model_copy(update={"sweeps": steps}))
    changed = found.model_copy(update={"rows": rows, "sweeps": {"feature_noise": list(levels)}})
    return changed.model_copy(update={"key": identity_of(changed).key})


def figure(*rows: str) -> SweepFigure:
    place = {"dataset": "cora", "split": "planetoid-public", "setting": "tran"}
    return SweepFigure.model_validate({"says": "s", "reads": "r", "kind": "feature_noise", "rows": [*rows], **place})


RECORDS = [swept(0.0, 0.2, (0.5, 1.0)), swept(1.0, 0.1, (0.5, 1.0))]


def test_panels_are_means_over_peers_and_runs_by_level() -> None:
    score, ece, disagreement = panels(figure("b", "e"), SIDES, RECORDS)
    both, ensemble = score.curves
    assert (both.label, both.x) == ("BOTH", (0.0, 0.5, 1.0))
    assert both.y == pytest.approx((79.0, 79.0 - 10 - 0.45, 79.0 - 20 - 0.9))
    assert both.y[1] - both.low[1] == pytest.approx(0.302765, abs=1e-5)  # ddof=1 of 0, 0.1, ..., 0.9
    assert ensemble.y == pytest.approx((90.0,) * 3)
    assert ece.curves[0].y == pytest.approx((20.0,) * 3) and ece.curves[1].y == pytest.approx((5.0,) * 3)
    assert disagreement.curves[0].y == pytest.approx((0.0, 12.5, 25.0))


def test_the_first_row_is_compared_with_the_others_level_by_level() -> None:
    lines = sweep_table(figure("b", "a"), SIDES, RECORDS).splitlines()
    assert lines[0] == "| Level | BOTH | ALONE | Difference to ALONE |"
    assert lines[2].startswith("| 0 | 79.00 ± 0.00 | 79.00 ± 0.00 | –: the same score in every run")
    # ten equal differences: sign flips give 2 / 2^10, Holm over the three levels times 3 and times 2
    assert "+10.00 \\[+10.00, +10.00\\] p=0.002, family 0.002: better" in lines[3] and "+20.00" in lines[4]


def test_a_run_without_the_step_has_no_score() -> None:
    one = swept(1.0, 0.1)
    assert at_level(one, ("feature_noise", 0.7)).rows[0].models == []
    assert at_level(one, ("feature_noise", 0.5)).rows[0].models[0].scores["tran"].value == pytest.approx(0.7)
    alone = at_level(record("mlp", "MLP"), ("clean", 0.0), "disagreement")
    assert all(row.models == [] for row in alone.rows)


def test_a_twin_without_a_sweep_stands_for_both() -> None:
    one, two = plain(1.0), swept(1.0, 0.1)
    assert replace(identity_of(two), sweeps={}).key == one.key != two.key
    assert without_repeats([two, one]) == [one] and without_repeats([two]) == [two]


@pytest.mark.parametrize("twins", [True, False])
def test_a_page_tests_each_training_once_and_draws_its_sweeps(tmp_path: Path, twins: bool) -> None:
    path = tmp_path / "page.toml"
    path.write_text(PAGE)
    text, plots = claim_page(path, [*RECORDS, *([plain(0.0), plain(1.0)] if twins else [])])
    assert "## Noise\n\nWhat noise is.\n\n![by level](page-sweep-1.svg)" in text
    drawn = "".join(ElementTree.fromstring(plots["page-sweep-1.svg"]).itertext())
    assert all(name in drawn for name in ("calibration error", "disagreement of the peers", "ALONE", "BOTH"))


def test_a_page_without_swept_records_says_so(tmp_path: Path) -> None:
    path = tmp_path / "page.toml"
    path.write_text(PAGE)
    text, plots = claim_page(path, [plain(0.0), plain(1.0)])
    assert text.count("Not run yet.") == 1 and "page-sweep-1.svg" not in plots
    path.write_text(PAGE.replace('rows = ["b", "a"]', 'rows = ["b", "c"]'))
    with pytest.raises(UserError, match="no row 'c'"):
        claim_page(path, [])
