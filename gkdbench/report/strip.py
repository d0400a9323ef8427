"""A strip of one row's runs: every run a dot, the mean a stroke, the published number a diamond."""

from __future__ import annotations

from dataclasses import dataclass

from gkdbench.report.cells import percent
from gkdbench.report.markup import Markup, tag
from gkdbench.report.model import Table, TableRow

WIDTH, HEIGHT, MARGIN = 132, 18, 5


@dataclass(frozen=True, slots=True)
class Scale:
    """The common axis of a table, scores in [0, 1]."""

    low: float
    high: float

    def x(self, value: float) -> str:
        """Position of a score, in units of the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return f"{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}"


def scale(table: Table) -> Scale | None:
    """The axis that holds every run and every published number of a table, None when nothing was scored."""
    values = [value for entry in table.entries for value in entry.scores.values()]
    values += [verdict.published.mean / 100 for entry in table.entries for verdict in entry.verdicts]
    if not values:
        return None
    low, high = min(values), max(values)
    return Scale(low, high) if high > low else Scale(low - 0.005, high + 0.005)


def strip(entry: TableRow, axis: Scale) -> Markup:
    """The drawing of one row; its description carries the range in words."""
    middle, scores = HEIGHT / 2, sorted(entry.scores.values())
    marks = [tag("line", x1=MARGIN, x2=WIDTH - MARGIN, y1=middle, y2=middle, class_="axis")]
    marks += [tag("circle", cx=axis.x(value), cy=middle, r=2.2, class_="run") for value in scores]
    found = entry.mean_std
    if found is not None:
        at = axis.x(found[0])
        marks.append(tag("line", x1=at, x2=at, y1=2, y2=HEIGHT - 2, class_="mean"))
    for verdict in entry.verdicts:
        at = axis.x(verdict.published.mean / 100)
        marks.append(tag("rect", x=-3, y=-3, width=6, height=6, class_="published",
                         transform=f"translate({at} {middle}) rotate(45)"))  # fmt: skip
    words = f"{len(scores)} runs from {percent(scores[0])} to {percent(scores[-1])}" if scores else "no run has a score"
    return tag(
        "svg", tag("title", words), marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", width=WIDTH, height=HEIGHT, role="img"
    )
