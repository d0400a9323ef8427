"""A page of checked claims as Markdown, with a plot of the differences behind each verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

from gkdbench.errors import UserError
from gkdbench.records.key import reported
from gkdbench.records.schema import Record, Row
from gkdbench.report.cells import flagged, percent, points
from gkdbench.report.claimcheck import Checked, Curves, check
from gkdbench.report.claimfile import ClaimKind, ClaimPage, CurveFigure, Figure, Quoted, Side, placed
from gkdbench.report.convergence import Spread
from gkdbench.report.forest import Interval, forest_plot
from gkdbench.report.learning_curves import learning_curves
from gkdbench.report.lines import line_plot
from gkdbench.report.loading import without_repeats
from gkdbench.report.markdown import plain, table
from gkdbench.report.protocols import of_protocol, protocol_text
from gkdbench.report.published import published
from gkdbench.report.statistics import MIN_RUNS, bootstrap_interval
from gkdbench.report.sweeps import sweep_sections
from gkdbench.report.tomlpage import read_page
from gkdbench.text_files import write_text

Studies = Callable[[str], tuple[Sequence[Record], Curves]]
"""Name -> the records of a study, and what reads their curves."""


def write_pages(
    folder: Path, records: Sequence[Record], curves: Curves | None = None, studies: Studies | None = None
) -> list[Path]:
    """For every ``NAME.toml`` in `folder`: ``NAME.md`` and next to it its plots, ``NAME-1.svg`` and so on."""
    written = []
    for path in sorted(folder.glob("*.toml")):
        text, plots = claim_page(path, records, curves, studies)
        write_text(path.with_suffix(".md"), text)
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
    checked = [check(claim, page.row, records, curves) for claim in page.claim]
    overview = [
        [str(number), plain(found.claim.says), f"**{found.verdict}**", _protocol(found), _tally(found), _runs(found)]
        for number, found in enumerate(checked, start=1)
    ]
    titles = ["", "Claim", "Verdict", "Protocol", "Win / tie / loss against the strongest rival", "Runs a place"]
    parts = [f"# {page.title}", page.intro.strip(), table(titles, overview), "How verdicts are made:\n\n" + RULES]
    plots = {}
    for number, found in enumerate(checked, start=1):
        name = f"{path.stem}-{number}.svg"
        parts += [f"## {number}. {found.claim.says}", _text(found)]
        if found.lines:
            plots[name] = _plot(page.row[found.claim.candidate].name, found)
            parts += [f"![differences with their intervals]({name})", _lines(found)]
        parts += _flags(found, page.row, records)
        if any(line.pace for line in found.lines):
            parts.append(_paces(found))
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


RULES = """\
- Differences are paired by (split index, seed); the interval is a 95 % bootstrap interval of the mean difference, p
  is that of the two-sided sign-flip test, Holm-corrected over all lines of the claim. Below 0.2 points is a tie.
- The strongest rival of a place is the one that leaves the candidate the smallest difference.
- Supported: at least half of the places are wins over the strongest rival, none is a loss.
- Not supported: no win, and at least half of the places exclude a gain of 0.2 points.
- Undecided: anything else, or a row is missing or has fewer than ten runs."""


MEASURES: dict[ClaimKind, tuple[str, Callable[[float], str]]] = {
    "better": ("score", percent),
    "steadier": ("deviation", percent),
    "sooner": ("epochs", lambda value: f"{value:.1f}"),
}
"""Test -> what its numbers are, and how one is printed. Differences are points, or percent of the rival's epochs."""


def _text(found: Checked) -> str:
    of = found.claim
    made = f" ({protocol_text(found.protocol)})" if found.protocol else ""
    return f"Source: {of.source}. Test: {of.reads} Verdict: **{found.verdict}**{made}."


def _lines(found: Checked) -> str:
    what, shown = MEASURES[found.claim.test]
    titles = ["Where", f"Candidate, {what}", "Rival", what, "Difference", "Interval", "p (Holm)", "n", "Result"]
    rows = []
    for line in found.lines:
        name = f"**{plain(line.rival)}**" if line.strongest else plain(line.rival)
        low, high = line.interval
        interval = f"{points(low)} to {points(high)}"
        rows.append(
            [
                plain(" · ".join(line.place)),
                shown(line.mean),
                name,
                shown(line.mean_rival),
                points(line.difference),
                interval,
                f"{line.p_value:.2g}",
                str(line.pairs),
                line.outcome or "preview",
            ]
        )
    return table(titles, rows) + "\n\nBold: the strongest rival of its place."


def _flags(found: Checked, rows: Mapping[str, Side], records: Sequence[Record]) -> list[str]:
    """One paragraph on the runs of a claim that carry a flag, if any do."""
    of = found.claim
    records = of_protocol(records, found.protocol)
    lines = []
    for (dataset, split), setting, name in product(of.where, of.settings, (of.candidate, *of.against)):
        entry = rows[name].find(records, dataset, split, setting)
        if entry is not None and entry.flags:
            what = ", ".join(flagged(entry))
            lines.append(plain(f"{rows[name].name} on {dataset}, {split}, {setting}: {what} of {entry.done}"))
    return [f"Runs that count with their score, and carry a flag: {'; '.join(lines)}."] if lines else []


def _paces(found: Checked) -> str:
    """What the same arrivals cost in epochs, in gradient steps of one model and on the clock."""
    rows = []
    for line in found.lines:
        if line.pace is not None:
            ratios = [_times(each) for each in (line.pace.epochs, line.pace.steps, line.pace.seconds)]
            reached = f"{line.pace.reached} of {line.pace.models}"
            rows.append([plain(" · ".join(line.place)), plain(line.rival), reached, *ratios])
    titles = ["Where", "Rival", "Models that reach its score", "Epochs", "Gradient steps of a model", "Wall clock"]
    return f"{PACES}\n\n{table(titles, rows)}"


PACES = """\
The same as ratios, candidate over rival, geometric means with intervals; below 1 is sooner. Seconds are those of
training and evaluation on the machine of the records, whatever else it did."""


def _times(ratio: Spread | None) -> str:
    return "–" if ratio is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)


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
    intervals = [
        Interval(f"{' · '.join(line.place)}: {line.rival}", line.difference, *line.interval, line.strongest)
        for line in found.lines
    ]
    return forest_plot(f"{candidate} against its rivals, points", intervals, points)


def _readings(figure: Figure, sides: Mapping[str, Side], records: Sequence[Record]) -> list[Interval]:
    """Mean and bootstrap interval of every reading of every row that has it in all its runs."""
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
                found.append(Interval(label, fmean(values), *bootstrap_interval(values), before=before))
    return found


def _read(figure: Figure, row: Row) -> dict[str, float]:
    """The figure's readings that `row` has."""
    found = {name: row.extra[name] for name in figure.readings if name in row.extra}
    return dict(zip(found, sorted(found.values(), reverse=True), strict=True)) if figure.ranked else found


def _plainly(value: float) -> str:
    return f"{value:.3g}"


def _protocol(found: Checked) -> str:
    return "–" if found.protocol is None else str(found.protocol)


def _tally(found: Checked) -> str:
    counts = [sum(line.outcome == result for line in found.deciding) for result in ("win", "tie", "loss")]
    return " / ".join(map(str, counts))


def _runs(found: Checked) -> str:
    pairs = sorted({line.pairs for line in found.deciding})
    return "–" if not pairs else str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
