"""Accuracy against cost as plain SVG: one point a row, those that no other row beats in both joined by a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gkdbench.records.measurement import Comparable
from gkdbench.report.markup import Markup, tag
from gkdbench.report.model import Table

KINDS: tuple[Comparable, ...] = ("latency", "training")
"""Costs that pages and folders have pictures of."""
WIDE, HIGH, LEFT, RIGHT, TOP, BELOW = 560, 360, 52, 190, 36, 46
LINE, LETTER = 13, 6.2
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#ddd}.front{stroke:#c9742b;fill:none;"
    "stroke-width:1.5}.dot{fill:#3b6ea5}.dominated .dot{fill:none;stroke:#9db4cc;stroke-width:1.5}"
    ".dominated text{fill:#999}@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#777}.grid{stroke:#444}}"
)
_MEANING = {
    "latency": "one query, times that of the reference",
    "inference": "all items in one call, times that of the reference",
    "training": "one training epoch, times that of the reference",
}


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One row of a table.

    Args:
        cost: ratio to the reference; lower is better.
        score: mean test score in [0, 1].
        dominated: another row costs no more and scores no less, and is better in one of both.
    """

    label: str
    cost: float
    score: float
    dominated: bool = False


def pareto_points(table: Table, against: Comparable) -> list[ParetoPoint]:
    """The complete, measured rows of `table`, cheapest first; ``as released`` rows stay out."""
    found = [
        (entry.name, ratio.value, entry.mean_std[0])
        for entry in table.entries
        if entry.variant == "corrected"
        and entry.mean_std
        and entry.cost
        and (ratio := entry.cost.ratio(against)) is not None
    ]
    found.sort(key=lambda point: (point[1], -point[2]))
    return [
        ParetoPoint(
            name,
            cost,
            score,
            any(c <= cost and s >= score and (c < cost or s > score) for _, c, s in found),
        )
        for name, cost, score in found
    ]


def pareto_plot(table: Table, against: Comparable) -> Markup | None:
    """An SVG element; None for fewer than two points."""
    points = pareto_points(table, against)
    if len(points) < 2:
        return None
    low, high = _ends([math.log10(point.cost) for point in points])
    bottom, top = _ends([100 * point.score for point in points])

    def x(cost: float) -> float:
        return LEFT + (math.log10(cost) - low) / (high - low) * WIDE

    def y(score: float) -> float:
        return TOP + (top - 100 * score) / (top - bottom) * HIGH

    title = f"{table.dataset}, {table.split}, {table.setting}: score against {against}"
    marks = [tag("style", Markup(_STYLE)), tag("text", title, x=8, y=16)]
    for tick in _cost_ticks(low, high):
        at = f"{x(tick):.1f}"
        marks.append(tag("line", x1=at, x2=at, y1=TOP, y2=TOP + HIGH, class_="grid"))
        marks.append(tag("text", f"{tick:g}x", x=at, y=TOP + HIGH + 16, text_anchor="middle"))
    for score in _score_ticks(bottom, top):
        at = f"{y(score / 100):.1f}"
        marks.append(tag("line", x1=LEFT, x2=LEFT + WIDE, y1=at, y2=at, class_="grid"))
        marks.append(tag("text", f"{score:g}", x=LEFT - 6, y=f"{y(score / 100) + 4:.1f}", text_anchor="end"))
    marks.append(tag("text", _MEANING[against], x=LEFT + WIDE / 2, y=TOP + HIGH + 36, text_anchor="middle"))
    front = [point for point in points if not point.dominated]
    path = " ".join(f"{x(point.cost):.1f},{y(point.score):.1f}" for point in front)
    marks.append(tag("polyline", points=path, class_="front"))
    taken = [(x(point.cost) - 4, x(point.cost) + 4, y(point.score) + 4) for point in points]  # no label on a point
    for point in sorted(points, key=lambda one: one.dominated):  # the front's labels first: they are never left out
        marks.append(_mark(point, x(point.cost), y(point.score), taken))
    width, height = LEFT + WIDE + RIGHT, TOP + HIGH + BELOW
    return tag(
        "svg", tag("title", title), marks,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
    )  # fmt: skip


def _mark(point: ParetoPoint, x: float, y: float, taken: list[tuple[float, float, float]]) -> Markup:
    """The point, with its label where no earlier one is in the way; the name shows when the pointer is on it."""
    begin, end = x + 8, x + 8 + LETTER * len(point.label)
    place = next((y + shift for shift in (4, -8, 16, -20) if _free(begin, end, y + shift, taken)), None)
    if place is not None:
        taken.append((begin, end, place))
    return tag(
        "g",
        tag("title", f"{point.label}: {100 * point.score:.2f}, {point.cost:.3g}x"),
        tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_="dot"),
        None if place is None else tag("text", point.label, x=f"{begin:.1f}", y=f"{place:.1f}"),
        class_="dominated" if point.dominated else None,
    )


def _free(begin: float, end: float, y: float, taken: Sequence[tuple[float, float, float]]) -> bool:
    return all(end < b or begin > e or abs(y - other) >= LINE for b, e, other in taken)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _cost_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _score_ticks(bottom: float, top: float) -> list[float]:
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (top - bottom) / step <= 8 or step == 50)
    return [round(step * k, 6) for k in range(math.ceil(bottom / step), math.floor(top / step) + 1)]
