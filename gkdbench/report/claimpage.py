"""A page of checked claims as Markdown, with a plot of the differences behind each verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from gkdbench.records.key import reported
from gkdbench.records.schema import Record
from gkdbench.report.cells import percent, points
from gkdbench.report.claimcheck import Checked, Curves, Figure, Kind, Side, check, load_page
from gkdbench.report.forest import Interval, forest_plot
from gkdbench.report.markdown import plain, table
from gkdbench.report.statistics import bootstrap_interval


def write_pages(folder: Path, records: Sequence[Record], curves: Curves | None = None) -> list[Path]:
    """For every ``NAME.toml`` in `folder`: ``NAME.md`` and ``NAME-<number>.svg`` beside it."""
    written = []
    for path in sorted(folder.glob("*.toml")):
        text, plots = claim_page(path, records, curves)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        for name, plot in plots.items():
            (folder / name).write_text(plot, encoding="utf-8")
        written.append(path.with_suffix(".md"))
    return written


def claim_page(path: Path, records: Sequence[Record], curves: Curves | None = None) -> tuple[str, dict[str, str]]:
    """(Markdown, file name -> SVG) of the page that `path` describes."""
    page = load_page(path)
    checked = [check(claim, page.row, records, curves) for claim in page.claim]
    overview = [
        [str(number), plain(found.claim.says), f"**{found.verdict}**", _tally(found), _runs(found)]
        for number, found in enumerate(checked, start=1)
    ]
    titles = ["", "Claim", "Verdict", "Win / tie / loss against the strongest rival", "Runs a place"]
    parts = [f"# {page.title}", page.intro.strip(), table(titles, overview), "How verdicts are made:\n\n" + RULES]
    plots = {}
    for number, found in enumerate(checked, start=1):
        name = f"{path.stem}-{number}.svg"
        parts += [f"## {number}. {found.claim.says}", _text(found)]
        if found.lines:
            plots[name] = _plot(page.row[found.claim.candidate].name, found)
            parts += [f"![differences with their intervals]({name})", _lines(found)]
        if found.absent:
            parts.append("Not run yet, so undecided:\n\n" + "\n".join(f"- {plain(text)}" for text in found.absent))
    for number, figure in enumerate(page.figure, start=1):
        name = f"{path.stem}-figure-{number}.svg"
        intervals = _readings(figure, page.row, records)
        parts += [f"## {figure.says}", figure.reads.strip()]
        if intervals:
            plots[name] = forest_plot(f"{figure.dataset}, {figure.split}: means with intervals", intervals, _plainly)
            parts.append(f"![means over runs with their intervals]({name})")
    if page.outro:
        parts.append(page.outro.strip())
    return "\n\n".join(parts) + "\n", plots


RULES = """\
- Differences are paired by (split index, seed); the interval is a 95 % bootstrap interval of the mean difference, p
  is that of the two-sided sign-flip test, Holm-corrected over all lines of the claim. Below 0.2 points is a tie.
- The strongest rival of a place is the one that leaves the candidate the smallest difference.
- Supported: at least half of the places are wins over the strongest rival, none is a loss.
- Not supported: no win, and at least half of the places exclude a gain of 0.2 points.
- Undecided: anything else, or a row is missing or has fewer than ten runs."""


MEASURES: dict[Kind, tuple[str, Callable[[float], str]]] = {
    "better": ("score", percent),
    "steadier": ("deviation", percent),
    "sooner": ("evaluations", lambda value: f"{value:.1f}"),
}
"""Test -> what its numbers are, and how one is printed. Differences are points, or percent of the evaluations."""


def _text(found: Checked) -> str:
    of = found.claim
    return f"Source: {of.source}. Test: {of.reads} Verdict: **{found.verdict}**."


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
            values = [row.extra[name] for row in rows if name in row.extra]
            if values and len(values) == len(rows):
                found.append(Interval(f"{side.name}: {called}", fmean(values), *bootstrap_interval(values)))
    return found


def _plainly(value: float) -> str:
    return f"{value:.3g}"


def _tally(found: Checked) -> str:
    counts = [sum(line.outcome == result for line in found.deciding) for result in ("win", "tie", "loss")]
    return " / ".join(map(str, counts))


def _runs(found: Checked) -> str:
    pairs = sorted({line.pairs for line in found.deciding})
    return "–" if not pairs else str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
