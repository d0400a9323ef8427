"""Tables and plots of stored results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from gkdkernels.core.cost import Cost

from gkdbench.errors import UserError
from gkdbench.measure.operators.bench import CandidateResult, CaseResult
from gkdbench.measure.operators.problem import Case
from gkdbench.measure.ratios import Ratio
from gkdbench.measure.svg import RatioBar, bar_plot
from gkdbench.measure.tables import BLOCKS, NOTHING, Stored, fill, plots, read_results
from gkdbench.measure.timers import TimeSample
from gkdbench.measure.training_steps.latency_vs_k import LatencyCurve, Point
from gkdbench.measure.training_steps.pairwise import TimingComparison

DOCS = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"


def row(name: str, seconds: float, *, ours: bool) -> CandidateResult:
    return CandidateResult(
        name, ours, False, samples=[TimeSample(seconds)] * 5, percent_of_roof=50.0, percent_of_floor=20.0
    )


@pytest.fixture
def told() -> dict[str, Any]:
    rows = [row("gkdkernels cpu", 0.001234, ours=True), row("torch <plain>", 0.004936, ours=False)]
    case = Case("spmm", {"width": 8}, "g", "sum")
    result = CaseResult(case, "warm", rows, True, Cost(800, 1600)).as_json()
    where = {"gpu": None, "cpu": "a processor", "torch": "2.13.0"}
    roofs = {"bytes_per_s": 1e10, "flops_per_s": 1e11}
    found = {"format": 1, "quick": False, "threads": 2, "roofs": roofs, "provenance": where, "results": [result]}
    loaded: dict[str, Any] = json.loads(json.dumps(found))
    return loaded


def test_a_table_has_ratios_and_no_seconds(told: dict[str, Any]) -> None:
    text = fill("a\n<!-- bench cpu -->\nold\n<!-- end cpu -->\nb", [Stored("cpu", told)])
    assert text.startswith("a\n<!-- bench cpu -->\nMeasured on a processor, 2 threads, torch 2.13.0.")
    assert text.endswith("<!-- end cpu -->\nb")
    line = (
        "| spmm-sum/g/width=8/float32/fwd+bwd | gkdkernels cpu | torch <plain> | 0.25 [0.25, 0.25], n=5 | 50 % | 20 % |"
    )
    assert line in text
    assert "old" not in text
    assert "0.0012" not in text
    again = fill(text, [Stored("cpu", told)])
    assert again == text


def test_a_red_gate_shows_no_number(told: dict[str, Any]) -> None:
    told["results"][0] |= {"green": False, "ratios": []}
    text = fill("<!-- bench cpu -->\n<!-- end cpu -->", [Stored("cpu", told)])
    assert "gate red" in text
    assert "50 %" not in text
    assert plots([Stored("cpu", told)]) == {}


def test_peers_without_a_time_are_listed_with_the_reason(told: dict[str, Any]) -> None:
    absent = row("torch_scatter", 1.0, ours=False)
    absent.status, absent.reason = "missing", "torch_scatter is not installed"
    told["results"][0]["rows"].append(asdict(absent))
    text = fill("<!-- bench cpu -->\n<!-- end cpu -->", [Stored("cpu", told)])
    assert "Competitors without a time in at least one case: torch_scatter (torch_scatter is not installed)." in text


def test_methods_have_limits_and_verdicts(told: dict[str, Any]) -> None:
    told["methods"] = []
    for limit, ratio in ((0.5, Ratio(0.25, 0.2, 0.3, 7)), (None, None)):
        one = TimingComparison("a step", "cora", "the other", limit, 0.0, ratio)
        told["methods"].append({**asdict(one), "verdict": one.verdict})
    text = fill("<!-- bench methods -->\n<!-- end methods -->", [Stored("methods", told)])
    assert "| a step | cora | the other | <= 0.50 | 0.25 [0.20, 0.30], n=7 | met |" in text
    assert "| a step | cora | the other |  | the two differ | not measured |" in text


def test_stored_names_are_shown_in_plain_words(told: dict[str, Any]) -> None:
    one = TimingComparison(
        "joint step, as the house runs it", "cora", "the released structure, re-written plainly", 0.5, 0.0, None
    )
    told["methods"] = [{**asdict(one), "verdict": one.verdict}]
    text = fill("<!-- bench methods -->\n<!-- end methods -->", [Stored("methods", told)])
    assert "| joint step, gkdbench training path | cora | PyTorch re-implementation of the official code |" in text


def test_latency_against_k_is_a_table_and_a_plot(told: dict[str, Any]) -> None:
    first, second = Ratio(1.0, 1.0, 1.0, 9), Ratio(1.5, 1.4, 1.7, 9)
    curves = [
        LatencyCurve("cora", rows, 3, (Point(1, 1.0, 0.0, first), Point(2, 1.9, 0.0, second), Point(3, 2.8, 1.0, None)))
        for rows in (1, 2708)
    ]
    told |= {"results": [], "latency": [asdict(curve) for curve in curves]}
    text = fill("<!-- bench latency -->\n<!-- end latency -->", [Stored("latency", told)])
    assert "| cora | 2708 | 2 of 3 | 1.90 | 1.50 [1.40, 1.70], n=9 |" in text
    assert "| cora | 1 | 3 of 3 | 2.80 | the two differ |" in text
    assert "| 1 of 3 |" not in text
    assert "![time against k](kernels-latency-k.svg)" in text
    plot = plots([Stored("latency", told)])["kernels-latency-k.svg"]
    ElementTree.fromstring(plot)
    for label in ("1 row<", "2708 rows<", "multiply-adds (dashed)", "cora", "experts a row, k"):
        assert label in plot
    assert plot.count("<polyline") == 3 and plot.count("stroke-dasharray") == 1


def test_what_was_not_measured_is_said(told: dict[str, Any]) -> None:
    assert NOTHING in fill("<!-- bench gpu -->\n<!-- end gpu -->", [Stored("cpu", told)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- bench cpus -->", "expected one of bars"),
        ("<!-- bench cpu -->", "expected one <!-- end cpu --> after it, got 0"),
    ],
)
def test_bad_marks(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fill(text, [])


def test_the_document_has_all_marks() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert all(text.count(f"<!-- bench {name} -->") == text.count(f"<!-- end {name} -->") == 1 for name in BLOCKS)


def test_files_that_are_no_results(tmp_path: Path, told: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected a folder of results, got none"):
        read_results([tmp_path / "none"])
    file = tmp_path / "x.json"
    file.write_text("[]")
    with pytest.raises(UserError, match=r"expected a result of .*, got another file"):
        read_results([tmp_path])
    file.write_text(json.dumps({**told, "quick": True}))
    with pytest.raises(UserError, match="expected a full run, got one with --quick"):
        read_results([file])
    file.write_text(json.dumps(told))
    assert [one.name for one in read_results([tmp_path])] == ["x"]


def test_plots_are_whole_and_escaped(told: dict[str, Any]) -> None:
    found = plots([Stored("cpu", told)])
    assert set(found) == {"kernels-cpu-bars.svg", "kernels-cpu-roofline.svg"}
    for text in (*found.values(), bar_plot("<&>", [RatioBar("a<b", 2.0, 1.5, 3.0)])):
        assert ElementTree.fromstring(text).tag.endswith("svg")
