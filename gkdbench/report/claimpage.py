"""A page of checked claims as Markdown, with a plot of the differences behind each verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

from gkdbench.errors import UserError
from gkdbench.records.key import reported
from gkdbench.records.schema import Record, Row
from gkdbench.report.cells import flagged, points
from gkdbench.report.claimcheck import Checked, check_all
from gkdbench.report.claimfile import ClaimPage, CurveFigure, Figure, Quoted, Side, placed
from gkdbench.report.claimtext import RULES, estimates, heading, lines, opening, overview, paces
from gkdbench.report.claimvalues import Curves
from gkdbench.report.forest import Interval, forest_plot
from gkdbench.report.learning_curves import learning_curves
from gkdbench.report.lines import line_plot
from gkdbench.report.loading import without_repeats
from gkdbench.report.markdown import plain, table
from gkdbench.report.protocols import of_protocol
from gkdbench.report.published import published
from gkdbench.report.statistics import MIN_RUNS, sign_flip_interval
from gkdbench.report.sweeps import sweep_sections
from gkdbench.report.tomlpage import read_page
from gkdbench.text_files import write_text

Studies = Callable[[str], tuple[Sequence[Record], Curves]]
"""Name -> the records of a study, and what reads their curves."""


def write_pages(
    folder: Path, records: Sequence[Record], curves: Curves | None = None, studies: Studies | None = None
) -> list[Path]:
    """For every ``NAME.toml`` in `folder`: ``NAME.md`` and next to it its plots, ``NAME-1.svg`` and so on.

    Plots of an earlier version of the page that it no longer shows are removed.
    """
    written = []
    for path in sorted(folder.glob("*.toml")):
        text, plots = claim_page(path, records, curves, studies)
        write_text(path.with_suffix(".md"), text)
        own = re.compile(rf"{re.escape(path.stem)}-(?:figure-|curve-|sweep-)?\d+\.svg")
        for old in folder.glob("*.svg"):
            if own.fullmatch(old.name) and old.name not in plots:
                old.unlink()
        for name, plot in plots.items():
            write_text(folder / name, plot)
        written.append(path.with_suffix(".md"))
    return written


def claim_page(
    path: Path, records: Sequence[Record], curves: Curves | None = None, studies: Studies | None = None
) -> tuple[str, dict[str, str]]:
    """(Markdown, file name -> SVG) of the page that `path` describes."""
    page = read_page(path, ClaimPage)
    if page.study:
        records, curves = studies(page.study) if studies else ([], None)
    every, records = records, without_repeats(records)
    checked = check_all(page.claim, page.row, records, curves)
    parts = [f"# {page.title}", opening(checked), page.intro.strip(), overview(checked)]
    parts.append("How verdicts are made:\n\n" + RULES)
    plots = {}
    for number, found in enumerate(checked, start=1):
        name = f"{path.stem}-{number}.svg"
        parts += [f"## {number}. {found.claim.says}", heading(found)]
        if found.lines or any(of.pooled.gains for of in found.rivals):
            plots[name] = _plot(page.row[found.claim.candidate].name, found)
            parts += [f"![differences with their intervals]({name})", estimates(found)]
        if found.lines:
            parts += ["By place:", lines(found)]
        parts += _flags(found, page.row, records)
        if any(line.pace for line in found.lines):
            parts.append(paces(found))
        if found.absent:
            parts.append("Not run yet, so undecided:\n\n" + "\n".join(f"- {plain(text)}" for text in found.absent))
    more, drawn = _figures(path.stem, page, records, curves)
    parts += more
    swept, levels = sweep_sections(path.stem, page, every)
    parts += swept
    parts += [_quoted(quoted) for quoted in page.quoted]
    if page.outro:
        parts.append(page.outro.strip())
    return "\n\n".join(parts) + "\n", plots | drawn | levels


def _figures(
    stem: str, page: ClaimPage, records: Sequence[Record], curves: Curves | None
) -> tuple[list[str], dict[str, str]]:
    """The sections of the page's figures and curves, and their plots."""
    parts: list[str] = []
    plots = {}
    for number, figure in enumerate(page.figure, start=1):
        name = f"{stem}-figure-{number}.svg"
        chosen, version = placed(figure, page.row, records)
        intervals = _readings(figure, page.row, chosen)
        parts += [f"## {figure.says}", figure.reads.strip()]
        if intervals:
            plots[name] = forest_plot(f"{figure.dataset}, {figure.split}: means with intervals", intervals, _plainly)
            parts += [f"![means over runs with their intervals]({name})", _all_rows(version)]
    for number, curve in enumerate(page.curve, start=1):
        name = f"{stem}-curve-{number}.svg"
        parts += [f"## {curve.says}", curve.reads.strip()]
        chosen, version = placed(curve, page.row, records)
        drawn = _course(curve, page.row, chosen, curves)
        if drawn is not None:
            plots[name], runs = drawn
            parts += [f"![means over runs and their bands]({name})", f"{BANDS.format(runs=runs)} {_all_rows(version)}"]
        else:
            parts.append("Not run yet.")
    return parts, plots


def _all_rows(version: int | None) -> str:
    return f"All rows: protocol {version}."


BANDS = (
    "Lines: means over runs, n = {runs}; bands: one standard deviation (ddof = 1) to each side. Up to the last epoch "
    "that all runs have."
)


def _flags(found: Checked, rows: Mapping[str, Side], records: Sequence[Record]) -> list[str]:
    """One paragraph on the runs of a claim that carry a flag, if any do."""
    records = of_protocol(records, found.protocol)
    seen: dict[str, None] = {}
    for of in found.claim.parts:
        for (dataset, split), setting, name in product(of.where, of.settings, (of.candidate, *of.against)):
            entry = rows[name].find(records, dataset, split, setting)
            if entry is not None and entry.flags:
                what = ", ".join(flagged(entry))
                seen[plain(f"{rows[name].name} on {dataset}, {split}, {setting}: {what} of {entry.done}")] = None
    return [f"Runs that count with their score, and carry a flag: {'; '.join(seen)}."] if seen else []


def _quoted(quoted: Quoted) -> str:
    """Published numbers with all that is known of them, and that they are not comparable."""
    rows = []
    for row in published():
        if row.method in quoted.methods:
            value = f"{row.mean:g}" + ("" if row.std is None else f" ± {row.std:g}")
            runs = "not said" if row.n_runs is None else str(row.n_runs)
            where = f"{row.dataset}, {row.split_protocol}, {row.setting}"
            rows.append(
                [*map(plain, (row.method, where, f"{value} ({row.metric}, {row.unit})", runs)), "not comparable",
                 plain("; ".join(row.caveats))]
            )  # fmt: skip
    titles = ["Published", "Where", "Number", "Runs", "Verdict", "What is known of it"]
    return f"## Published numbers\n\n{quoted.why.strip()}\n\n{table(titles, rows)}"


def _course(
    figure: CurveFigure, sides: Mapping[str, Side], records: Sequence[Record], curves: Curves | None
) -> tuple[str, str] | None:
    """The plot and how many runs it shows; None where no record has a reading."""
    if curves is None:
        raise UserError("curves read side-cars; make the page through `gkdbench report --claims`")
    panels, runs = learning_curves(figure, sides, records, curves)
    if not panels:
        return None
    title = f"{figure.dataset}, {figure.split}, {figure.setting}"
    text = " or ".join(map(str, runs)) + (" (preview)" if min(runs) < MIN_RUNS else "")
    return line_plot(title, panels, across="epoch", unit=figure.unit), text


def _plot(candidate: str, found: Checked) -> str:
    """Pooled differences in full colour, those by place in a lighter one."""
    pools = [
        Interval(f"{of.rival}, pooled", test.difference, *test.interval)
        for of in found.rivals
        if (test := of.estimate.test) is not None
    ]
    places = [
        Interval(f"{' · '.join(line.place)}: {line.rival}", test.difference, *test.interval, strong=False)
        for line in found.lines
        if (test := line.estimate.test) is not None
    ]
    return forest_plot(f"{candidate} against its rivals, points", [*pools, *places], points)


def _readings(figure: Figure, sides: Mapping[str, Side], records: Sequence[Record]) -> list[Interval]:
    """Mean and interval of every reading of every row that has it in all its runs."""
    by_key = {record.key: record for record in records}
    found = []
    for side in (sides[name] for name in figure.rows):
        entry = side.find(records, figure.dataset, figure.split, figure.setting)
        rows = [row for row in by_key[entry.key].rows if reported(row.seed)] if entry else []
        for name, called in figure.readings.items():
            start = figure.before.get(name, "")
            values = [read[name] for read in map(partial(_read, figure), rows) if name in read]
            begun = [row.extra[start] for row in rows if start in row.extra]
            if values and len(values) == len(rows):
                before = fmean(begun) if len(begun) == len(rows) else None
                label = f"{side.name}: {called}"
                found.append(Interval(label, fmean(values), *sign_flip_interval(values), before=before))
    return found


def _read(figure: Figure, row: Row) -> dict[str, float]:
    """The figure's readings that `row` has."""
    found = {name: row.extra[name] for name in figure.readings if name in row.extra}
    return dict(zip(found, sorted(found.values(), reverse=True), strict=True)) if figure.ranked else found


def _plainly(value: float) -> str:
    return f"{value:.3g}"
