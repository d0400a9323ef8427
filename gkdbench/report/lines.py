"""Curves with bands in panels that share their axes, as plain SVG that reads in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gkdbench.report.forest import LETTER
from gkdbench.report.markup import Markup, tag

WIDTHS, HIGH, LEFT, GAP, HEAD, BETWEEN, FOOT = {1: 520, 2: 340, 3: 230}, 170, 54, 26, 92, 74, 38
"""WIDTHS: of a panel, by how many are next to each other."""
COLOURS = ("#3b6ea5", "#d1782a", "#2f8f6b", "#9361b0", "#c0504d", "#8a8a8a")
MOST_POINTS = 80
"""A curve is thinned to so many, its ends among them."""
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#999;stroke-opacity:.25}"
    ".curve{fill:none;stroke-width:1.6}.band{fill-opacity:.16;stroke:none}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#777}}"
)


@dataclass(frozen=True, slots=True)
class PlotCurve:
    """Points x, ascending, with y and the ends of a band."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves on one pair of axes."""

    title: str
    curves: tuple[PlotCurve, ...]


@dataclass(frozen=True, slots=True)
class _Axes:
    """Data to drawing, inside a panel `wide`, whose lower left corner is (0, HIGH)."""

    wide: int
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> str:
        across = (x - self.x[0]) / (self.x[1] - self.x[0]) * self.wide
        up = (y - self.y[0]) / (self.y[1] - self.y[0]) * HIGH
        return f"{across:.1f},{HIGH - up:.1f}"

    def down(self, y: float) -> str:
        return self.at(self.x[0], y).split(",")[1]

    def across(self, x: float) -> str:
        return self.at(x, self.y[0]).split(",")[0]


def line_plot(title: str, panels: Sequence[Panel], *, across: str, unit: str = "") -> str:
    """An SVG document; a label has one colour in all panels.

    Args:
        across: what x is. unit: what y is.
    """
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colours = {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}
    columns = min(len(panels), max(WIDTHS))
    axes = _axes(panels, WIDTHS[columns])
    rows = -(-len(panels) // columns)
    legend, end = _legend(labels, colours)
    width = max(LEFT + columns * (axes.wide + GAP), end)
    step = HIGH + BETWEEN
    height = HEAD + rows * step - BETWEEN + FOOT
    marks = [tag("style", Markup(_STYLE)), tag("text", title, x=8, y=16), legend]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        place = f"translate({LEFT + column * (axes.wide + GAP)} {HEAD + row * step})"
        marks.append(tag("g", _panel(panel, axes, colours, unit if column == 0 else None, across), transform=place))
    box = f"0 0 {width} {height}"
    named = tag("title", title)
    space = "http://www.w3.org/2000/svg"
    return str(tag("svg", named, marks, xmlns=space, viewBox=box, width=width, height=height, role="img")) + "\n"


def _legend(labels: Sequence[str], colours: dict[str, str]) -> tuple[list[Markup], int]:
    marks, x = [], 8
    for label in labels:
        marks.append(tag("line", x1=x, x2=x + 18, y1=34, y2=34, stroke=colours[label], stroke_width=3))
        marks.append(tag("text", label, x=x + 24, y=38))
        x += 44 + int(LETTER * len(label))
    return marks, x


def _panel(panel: Panel, axes: _Axes, colours: dict[str, str], unit: str | None, across: str) -> list[Markup]:
    marks = [tag("text", panel.title, x=0, y=-10, font_weight="bold")]
    for value in ticks(*axes.y):
        y = axes.down(value)
        marks.append(tag("line", x1=0, x2=axes.wide, y1=y, y2=y, class_="grid"))
        if unit is not None:
            marks.append(tag("text", f"{value:g}", x=-6, y=float(y) + 4, text_anchor="end"))
    if unit:
        marks.append(tag("text", unit, x=-LEFT + 8, y=-26))
    marks.append(tag("line", x1=0, x2=axes.wide, y1=HIGH, y2=HIGH, class_="axis"))
    for value in ticks(*axes.x):
        marks.append(tag("text", f"{value:g}", x=axes.across(value), y=HIGH + 15, text_anchor="middle"))
    marks.append(tag("text", across, x=axes.wide, y=HIGH + 29, text_anchor="end"))
    for curve in panel.curves:
        kept = _thinned(len(curve.x))
        upper = [axes.at(curve.x[i], curve.high[i]) for i in kept]
        lower = [axes.at(curve.x[i], curve.low[i]) for i in reversed(kept)]
        marks.append(tag("polygon", points=" ".join(upper + lower), fill=colours[curve.label], class_="band"))
    for curve in panel.curves:
        points = " ".join(axes.at(curve.x[i], curve.y[i]) for i in _thinned(len(curve.x)))
        marks.append(tag("polyline", points=points, stroke=colours[curve.label], class_="curve"))
    return marks


def _axes(panels: Sequence[Panel], wide: int) -> _Axes:
    curves = [curve for panel in panels for curve in panel.curves]
    xs = [end for curve in curves for end in (curve.x[0], curve.x[-1])]
    ys = [value for curve in curves for value in (*curve.low, *curve.high)]
    return _Axes(wide, _range(min(xs), max(xs)), _range(min(ys), max(ys)))


def _range(low: float, high: float) -> tuple[float, float]:
    """From `low` to `high`, never empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thinned(count: int) -> list[int]:
    """Positions of at most MOST_POINTS of `count` points."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, as few as are three or more (never above eight)."""
    power = math.floor(math.log10(high - low))
    steps = (factor * 10.0**size for size in (power, power - 1) for factor in (5, 2, 1))
    return next(found for found in (_multiples(step, low, high) for step in steps) if len(found) >= 3)


def _multiples(step: float, low: float, high: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]
