"""Sweeps on a page: score, calibration error and disagreement against the level of a corruption, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from gkdbench.records.schema import CorruptedResult, Record, Row, Score
from gkdbench.report.cells import estimate_text, score
from gkdbench.report.claimfile import ClaimPage, Side, SweepFigure, placed
from gkdbench.report.lines import Panel, PlotCurve, line_plot
from gkdbench.report.markdown import plain, table
from gkdbench.report.model import TableRow
from gkdbench.report.statistics import Estimate, judge

Measure = Literal["scores", "ece", "disagreement"]
MEASURES: Mapping[Measure, str] = {
    "scores": "score",
    "ece": "calibration error",
    "disagreement": "disagreement of the peers",
}


SWEPT = (
    "Scores: mean ± standard deviation over runs. Differences: mean over pairs of runs, 95 % interval and p of the "
    "sign-flip test, and the family-wise p over the table (step-down max-T). Corrupted inputs are the "
    "same for all models of a seed."
)


def sweep_sections(stem: str, page: ClaimPage, records: Sequence[Record]) -> tuple[list[str], dict[str, str]]:
    """The sections of the page's sweeps as Markdown, and their plots (file name -> SVG)."""
    parts: list[str] = []
    plots = {}
    for number, figure in enumerate(page.sweep, start=1):
        name = f"{stem}-sweep-{number}.svg"
        parts += [f"## {figure.says}", figure.reads.strip()]
        swept = [record for record in records if figure.kind in record.sweeps]
        records_of_one, version = placed(figure, page.row, swept)
        drawn = panels(figure, page.row, records_of_one)
        if not drawn:
            parts.append("Not run yet.")
            continue
        title = f"{figure.dataset}, {figure.split}, {figure.setting}: means and standard deviations over runs"
        plots[name] = line_plot(title, drawn, across=figure.kind.replace("_", " "), unit="%")
        parts += [f"![by level]({name})", sweep_table(figure, page.row, records_of_one)]
        parts.append(f"{SWEPT} All rows: protocol {version}.")
    return parts, plots


def panels(figure: SweepFigure, sides: Mapping[str, Side], records: Sequence[Record]) -> list[Panel]:
    """A panel for each measure that there is, in percent; means over runs and one standard deviation to each side."""
    found = []
    for measure, called in MEASURES.items():
        curves = []
        for side in (sides[name] for name in figure.rows):
            known = [(level, of) for level, of in _by_level(figure, side, records, measure) if of.mean_std is not None]
            if known:
                curves.append(_curve(side.name, known))
        if curves:
            found.append(Panel(called, tuple(curves)))
    return found


def sweep_table(figure: SweepFigure, sides: Mapping[str, Side], records: Sequence[Record]) -> str:
    """Scores by level, and by how much the first row is above each other one: paired, one family."""
    chosen = [sides[name] for name in figure.rows]
    by_row = {side.name: dict(_by_level(figure, side, records, "scores")) for side in chosen}
    candidate, *others = by_row
    levels = sorted({level for of in by_row.values() for level in of})
    compared: dict[tuple[float, str], dict[tuple[int, int], float]] = {}
    for level in levels:
        for other in others:
            ours, theirs = by_row[candidate].get(level), by_row[other].get(level)
            pairs = sorted(ours.scores.keys() & theirs.scores.keys()) if ours and theirs else []
            if ours and theirs and pairs:
                compared[level, other] = {pair: ours.scores[pair] - theirs.scores[pair] for pair in pairs}
    statistics = dict(zip(compared, judge(list(compared.values())), strict=True))
    rows = []
    for level in levels:
        shown = [score(of[level]) if level in of else "–" for of in by_row.values()]
        differences = [_difference(statistics.get((level, other))) for other in others]
        rows.append([f"{level:g}", *shown, *differences])
    titles = ["Level", *(plain(name) for name in by_row), *(f"Difference to {plain(name)}" for name in others)]
    return table(titles, rows)


def at_level(record: Record, step: tuple[str, float], measure: Measure = "scores") -> Record:
    """`record` with what its models reached at one step (kind, level) of its sweep in the place of their scores.

    Runs that lack the step, or the measure, have no models. The peers' disagreement is that of all pairs, averaged,
    and the same for every model.
    """
    rows = []
    for row in record.rows:
        found = next((s for s in row.sweeps if (s.kind, s.level) == step), None)
        values = _values(row, found, measure) if found else {}
        models = [
            model.model_copy(update={"scores": {c: Score(value=v, n=0) for c, v in values[model.name].items()}})
            for model in row.models
            if model.name in values
        ]
        rows.append(row.model_copy(update={"models": models}))
    return record.model_copy(update={"rows": rows})


def _values(row: Row, found: CorruptedResult, measure: Measure) -> Mapping[str, Mapping[str, float]]:
    """Model -> setting -> value."""
    if measure != "disagreement":
        return found.scores if measure == "scores" else found.ece
    pairs = list(found.disagreement.values())
    columns = pairs[0] if pairs else {}
    mean = {column: fmean(pair[column] for pair in pairs) for column in columns}
    return {model.name: mean for model in row.models} if mean else {}


def _by_level(
    figure: SweepFigure, side: Side, records: Sequence[Record], measure: Measure
) -> list[tuple[float, TableRow]]:
    """(level, row), the clean inputs first; nothing where no swept record fits."""
    swept = [record for record in records if figure.kind in record.sweeps]
    levels = sorted({level for record in swept for level in record.sweeps[figure.kind]})
    found = []
    for kind, level in [("clean", 0.0), *((figure.kind, level) for level in levels)]:
        at = [at_level(record, (kind, level), measure) for record in swept]
        entry = side.find(at, figure.dataset, figure.split, figure.setting)
        if entry is not None and entry.scores:
            found.append((level, entry))
    return found


def _curve(label: str, known: Sequence[tuple[float, TableRow]]) -> PlotCurve:
    levels, ends = [], []
    for level, entry in known:
        assert entry.mean_std is not None  # chosen so
        mean, std = (100 * (value or 0.0) for value in entry.mean_std)
        levels.append(level)
        ends.append((mean, mean - std, mean + std))
    y, low, high = (tuple(end[i] for end in ends) for i in range(3))
    return PlotCurve(label, tuple(levels), y, low, high)


def _difference(of: Estimate | None) -> str:
    return "–" if of is None else plain(f"{estimate_text(of)}: {of.said}")
