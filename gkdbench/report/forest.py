"""A forest plot: differences with their intervals around zero, as plain SVG that reads in light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gkdbench.report.markup import Markup, tag

ROW, WIDE, LETTER = 18, 330, 6.5
"""LETTER: width of one on average, in the drawing's units; a viewer's font may be a little wider."""
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.span{stroke:#3b6ea5;stroke-width:2}.dot{fill:#3b6ea5}"
    ".lesser .span{stroke:#9db4cc}.lesser .dot{fill:#9db4cc}.ring{fill:none;stroke:#c9742b;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#777}}"
)


@dataclass(frozen=True, slots=True)
class Interval:
    """One row: a value and the ends of its interval, infinite where nothing bounds it.

    `strong`: drawn in full colour. `before`: drawn as a ring.
    """

    label: str
    value: float
    low: float
    high: float
    strong: bool = True
    before: float | None = None


def forest_plot(title: str, intervals: Sequence[Interval], shown: Callable[[float], str]) -> str:
    """An SVG document; zero is a stroke, the numbers are next to the rows, printed by `shown`."""
    ends = [
        end
        for row in intervals
        for end in (row.low, row.high, row.value, row.value if row.before is None else row.before)
    ]
    ends = [end for end in ends if math.isfinite(end)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    span = (high - low) or 0.01
    numbers = [_numbers(row, shown) for row in intervals]
    left = 24 + int(LETTER * max((len(row.label) for row in intervals), default=0))
    right = 24 + int(LETTER * max(map(len, numbers), default=0))

    def x(value: float) -> str:
        return f"{left + (min(max(value, low), high) - low) / span * WIDE:.1f}"

    height, width = ROW * (len(intervals) + 3), left + WIDE + right
    bottom = height - ROW
    marks = [
        tag("style", Markup(_STYLE)),
        tag("text", title, x=8, y=16),
        tag("line", x1=x(0), x2=x(0), y1=ROW * 1.5, y2=bottom, class_="axis"),
        tag("text", "0", x=x(0), y=bottom + 14, text_anchor="middle"),
    ]
    for number, row in enumerate(intervals):
        y = ROW * (number + 2.5)
        marks.append(
            tag(
                "g",
                tag("text", row.label, x=8, y=y + 4),
                None if row.before is None else tag("circle", cx=x(row.before), cy=y, r=4, class_="ring"),
                tag("line", x1=x(row.low), x2=x(row.high), y1=y, y2=y, class_="span"),
                tag("circle", cx=x(row.value), cy=y, r=4, class_="dot"),
                tag("text", numbers[number], x=left + WIDE + 12, y=y + 4),
                class_=None if row.strong else "lesser",
            )
        )
    return (
        str(
            tag(
                "svg",
                tag("title", title),
                marks,
                xmlns="http://www.w3.org/2000/svg",
                viewBox=f"0 0 {width} {height}",
                width=width,
                height=height,
                role="img",
            )
        )
        + "\n"
    )


def _numbers(row: Interval, shown: Callable[[float], str]) -> str:
    begun = "" if row.before is None else f"{shown(row.before)} → "
    ends = shown(row.low) if math.isfinite(row.low) else "-∞", shown(row.high) if math.isfinite(row.high) else "+∞"
    return f"{begun}{shown(row.value)} [{ends[0]}, {ends[1]}]"
