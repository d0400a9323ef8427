"""Readings over epochs: which runs they are means of, how they are drawn, and what a page says of them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.records_factory import TEN, record

from gkdbench.errors import UserError
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.report.claimfile import CurveFigure, Side
from gkdbench.report.claimpage import claim_page
from gkdbench.report.forest import Interval, forest_plot
from gkdbench.report.learning_curves import learning_curves
from gkdbench.report.lines import HIGH, MOST_POINTS, WIDTHS, Panel, PlotCurve, line_plot, ticks

SIDES = {name: Side(name=name.upper(), method=name) for name in "ab"}
RECORDS = [record("a", "A", runs=TEN), record("b", "B", runs=TEN)]
PLACE = {"dataset": "cora", "split": "planetoid-public", "setting": "tran"}


def figure(readings: dict[str, str], per: str = "row") -> CurveFigure:
    of = {"says": "s", "reads": "r", "rows": ["a", "b"], "readings": readings, "per": per, "unit": "nats"}
    return CurveFigure.model_validate(of | PLACE)


def side_car(
    _: object = None, lengths: tuple[int, ...] = (5,) * 10, names: tuple[str, ...] = ("p0", "p1")
) -> SidecarArrays:
    """Run r has value r + k + epoch for peer k."""
    found: SidecarArrays = {}
    for (index, seed), length in zip(TEN, lengths, strict=True):
        epochs = np.arange(1, length + 1, dtype=np.float32)
        found[f"{index}-{seed}/terms/epoch"] = epochs
        for k, name in enumerate(names):
            found[f"{index}-{seed}/terms/kl.{name}"] = epochs + index + k
    return found


def test_a_curve_is_the_mean_over_runs_up_to_the_shortest() -> None:
    panels, counts = learning_curves(figure({"terms/kl.p0": "first"}), SIDES, RECORDS[:1],
                             lambda _: side_car(lengths=(5,) * 9 + (3,)))  # fmt: skip
    assert counts == [10]
    (panel,) = panels
    (curve,) = panel.curves
    assert (panel.title, curve.label) == ("A", "first")
    assert curve.x == (1.0, 2.0, 3.0)
    assert curve.y == pytest.approx((5.5, 6.5, 7.5))
    assert np.subtract(curve.high, curve.y) == pytest.approx(np.std(range(10), ddof=1))
    assert np.subtract(curve.y, curve.low) == pytest.approx(np.std(range(10), ddof=1))


def test_a_star_is_the_mean_of_what_fits_and_panels_may_be_readings() -> None:
    readings = {"terms/kl.p*": "both", "terms/kl.p1": "second", "terms/none": "nothing"}
    by_row, _ = learning_curves(figure(readings), SIDES, RECORDS, side_car)
    assert [(p.title, [c.label for c in p.curves]) for p in by_row] == [(n, ["both", "second"]) for n in ("A", "B")]
    assert by_row[0].curves[0].y[0] == pytest.approx(6.0)
    by_reading, _ = learning_curves(figure(readings, "reading"), SIDES, RECORDS, side_car)
    assert [(p.title, [c.label for c in p.curves]) for p in by_reading] == [(n, ["A", "B"]) for n in ("both", "second")]


def test_what_not_every_run_has_or_says_when_is_left_out_or_refused() -> None:
    arrays = side_car()
    del arrays["3-3/terms/kl.p0"]
    assert learning_curves(figure({"terms/kl.p0": "first"}), SIDES, RECORDS, lambda _: arrays) == ([], [])
    short = side_car() | {"3-3/terms/kl.p0": np.ones(2)}
    with pytest.raises(UserError, match=r"one value for each of 5 reports, got shapes \(2,\)"):
        learning_curves(figure({"terms/kl.p0": "first"}), SIDES, RECORDS, lambda _: short)
    late = side_car() | {"3-3/terms/epoch": np.arange(5) * 2.0}
    with pytest.raises(UserError, match="different epochs"):
        learning_curves(figure({"terms/kl.p0": "first"}), SIDES, RECORDS, lambda _: late)


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_curves_and_bands_stay_inside_their_panels() -> None:
    wide = WIDTHS[3]
    x = tuple(float(i) for i in range(1, 301))
    curve = PlotCurve("layer <1>", x, tuple(v**2 for v in x), tuple(v**2 - 5 for v in x), tuple(v**2 + 9 for v in x))
    panels = [Panel(f"p{k}", (curve,)) for k in range(4)]
    root = ElementTree.fromstring(line_plot("a title", panels, across="epoch", unit="nats"))
    space = "{http://www.w3.org/2000/svg}"
    points = [numbers(shape.attrib["points"]) for shape in root.iter() if "points" in shape.attrib]
    assert len(points) == 8
    for each in points:
        assert min(each[::2]) >= 0 and max(each[::2]) <= wide
        assert min(each[1::2]) >= 0 and max(each[1::2]) <= HIGH
    lines = list(root.iter(f"{space}polyline"))
    assert all(len(numbers(line.attrib["points"])) == 2 * MOST_POINTS for line in lines)
    assert numbers(lines[0].attrib["points"])[-2] == wide
    assert [t.text for t in root.iter(f"{space}text")].count("layer <1>") == 1
    width, height = numbers(root.attrib["viewBox"])[2:]
    for group in root.iter(f"{space}g"):
        left, top = numbers(group.attrib["transform"])
        assert left + wide <= width and top + HIGH + 29 <= height


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7), (1, 150), (0.001, 0.0012), (80.5, 93.1)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert low <= found[0] and found[-1] <= high + 1e-12
    assert len({f"{value:g}" for value in found}) == len(found)


def test_a_constant_is_drawn() -> None:
    flat = PlotCurve("c", (1.0,), (2.0,), (2.0,), (2.0,))
    assert "polyline" in line_plot("t", [Panel("p", (flat,))], across="epoch")


def test_a_row_may_show_how_it_began() -> None:
    plot = forest_plot("t", [Interval("layer 1", 0.5, 0.4, 0.6, before=-0.9)], str)
    assert "-0.9 → 0.5 [0.4, 0.6]" in plot and 'class="ring"' in plot
    assert "ring" not in forest_plot("t", [Interval("layer 1", 0.5, 0.4, 0.6)], str).split("</style>")[1]


PAGE = """
title = "x"
intro = ""
[row.a]
name = "A"
method = "a"
[[claim]]
says = "c"
source = "s"
reads = "r."
candidate = "a"
against = ["a"]
datasets = ["cora"]
splits = ["planetoid-public"]
settings = ["tran"]
[[curve]]
says = "How it went"
reads = "KL."
rows = ["a"]
readings = { "terms/kl.p*" = "mean of peers" }
dataset = "cora"
split = "planetoid-public"
setting = "tran"
[[figure]]
says = "Before and after"
reads = "Ring: before."
rows = ["a"]
readings = { after = "layer 1" }
before = { after = "begun" }
dataset = "cora"
split = "planetoid-public"
setting = "tran"
[[quoted]]
methods = ["Alignahead"]
why = "One seed each."
"""


def test_a_page_shows_curves_beginnings_and_published_numbers(tmp_path: Path) -> None:
    page = tmp_path / "x.toml"
    page.write_text(PAGE)
    read = [row.model_copy(update={"extra": {"after": 0.75, "begun": 0.25}}) for row in RECORDS[0].rows]
    records = [RECORDS[0].model_copy(update={"rows": read})]
    text, plots = claim_page(page, records, side_car)
    assert "## How it went\n\nKL.\n\n![" in text
    assert "means over runs, n = 10; bands: one standard deviation (ddof = 1)" in text
    assert "mean of peers" in plots["x-curve-1.svg"]
    assert "0.25 → 0.75" in plots["x-figure-1.svg"]
    logs = [line for line in text.splitlines() if line.startswith("| Alignahead |")]
    assert len(logs) == 2 and all("not comparable" in line and "| 1 |" in line for line in logs)
    assert "One seed each." in text
    empty, none = claim_page(page, [], side_car)
    assert "## How it went\n\nKL.\n\nNot run yet." in empty and none == {}
    with pytest.raises(UserError, match="curves read side-cars"):
        claim_page(page, records)
    page.write_text(PAGE.replace('rows = ["a"]\nreadings = { "terms', 'rows = ["aa"]\nreadings = { "terms'))
    with pytest.raises(UserError, match="no row 'aa'"):
        claim_page(page, records, side_car)
