"""The board as one self-contained page: no script, no request, readable on a phone and in the dark."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files
from itertools import groupby

from gkdbench.records.schema import DataInfo
from gkdbench.report.cells import BY_KEY, CELLS, estimate_text, filled, number, percent, score
from gkdbench.report.markup import Markup, join, tag
from gkdbench.report.model import Board, Section, Summary, Table, TableRow
from gkdbench.report.pareto import KINDS, pareto_plot
from gkdbench.report.protocols import protocol_text
from gkdbench.report.published import PublishedVerdict
from gkdbench.report.strip import Scale, scale, strip
from gkdbench.report.summarycells import SUMMARY_READS, SUMMARY_TITLES, summary_numbers, summary_scores, tested

SIGNS = {"reproduced": "●", "close": "◐", "not reproduced": "○", "not comparable": "–"}
TEXT_CELLS = ("row", "needs", "published", "verdict", "versus", "training")
SETTING_NAMES = {
    "tran": "transductive: the scored nodes and their edges were seen, unlabelled, in training",
    "ind": "inductive: the scored nodes and their edges were not in training",
    "prod": "production: 20% unseen and 80% observed test nodes, 0.2 ind + 0.8 tran",
    "coldstart": "cold start: unseen nodes, scored without their edges",
    "graph": "whole graphs are labelled",
}


def to_html(board: Board, *, title: str = "gkdbench board") -> str:
    """The whole page. Equal boards give equal bytes: nothing on it depends on when it was made."""
    css = files("gkdbench.report").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Markup(css)),
    )
    body = tag(
        "body",
        _masthead(board, title),
        _nav(board),
        tag(
            "main",
            _publications(board),
            _across(board),
            [_dataset(name, tables) for name, tables in board.datasets.items()],
            _failures(board),
            _missing(board),
            _glossary(),
        ),
        _footer(board),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _masthead(board: Board, title: str) -> Markup:
    newest = {(t.dataset, t.split, t.setting, e.name, v.claim): v for t, e, v in reversed(board.compared)}
    grades = Counter(verdict.status for verdict in newest.values())
    facts = [
        (str(len(board.datasets)), "data sets"),
        (f"{board.records:,}", "records"),
        (f"{board.runs:,}", "runs"),
        *((str(grades[status]), status) for status in ("reproduced", "close", "not reproduced") if grades[status]),
        (str(len(board.failures)), "failed"),
        (str(sum(len(item.runs) for item in board.missing)), "missing"),
    ]
    return tag(
        "header",
        tag("h1", title),
        tag("p", "Test scores in percent, of the epoch that validation selected. Every number carries its runs; "
            "incomplete rows have no mean.", class_="lede"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for value, name in facts], class_="facts"),
    )  # fmt: skip


def _nav(board: Board) -> Markup:
    fixed = (("Publications", "publications", board.compared), ("Across", "across", board.summaries))
    links = [tag("a", name, href=f"#{anchor}") for name, anchor, shown in fixed if shown]
    links += [tag("a", name, href=f"#{_anchor(name)}") for name in board.datasets]
    links.append(tag("a", "How to read", href="#reading"))
    return tag("nav", tag("div", links), aria_label="Data sets")


def _publications(board: Board) -> Markup | None:
    """Every comparison with a published number, in one place: a table for each protocol."""
    if not board.compared:
        return None
    versions = sorted({t.protocol for t, _, _ in board.compared}, reverse=True)
    return tag(
        "section",
        tag("h2", "Against publications"),
        tag(
            "p",
            "Rows on the publication's own split, in its own form. Reproduced: within the tolerance, "
            "max(0.5 points, 2 standard errors); close: within twice that.",
            class_="size",
        ),
        [_publications_of(board, version) for version in versions],
        tag("details", tag("summary", "Sources, and how each number was checked"), tag("ul", _sources(board))),
        id="publications",
    )


def _publications_of(board: Board, version: int) -> Markup:
    rows = [
        tag(
            "tr",
            tag("th", entry.name, tag("small", _where(table)), scope="row"),
            tag("td", _grade(verdict)),
            tag("td", score(entry), class_="num"),
            tag("td", number(verdict), class_="num"),
            tag("td", f"{verdict.difference:+.2f}", class_="num"),
            tag("td", f"{verdict.tolerance:.2f}", class_="num"),
            tag("td", verdict.claim),
        )
        for table, entry, verdict in board.compared
        if table.protocol == version
    ]
    titles = ("Row", "Verdict", "Ours", "Published", "Difference", "Tolerance", "Publication")
    head = tag(
        "tr", [tag("th", name, scope="col", class_="num" if 1 < i < 6 else None) for i, name in enumerate(titles)]
    )
    name = f"Against publications, {protocol_text(version)}"
    return tag(
        "article",
        tag("h3", protocol_text(version).capitalize()),
        _box(tag("table", tag("thead", head), tag("tbody", rows)), name),
    )


def _dataset(name: str, tables: list[Table]) -> Markup:
    parts: list[Markup] = []
    for split, group in groupby(tables, key=lambda table: table.split):
        members = list(group)
        facts = dict.fromkeys(_contents(table.data) for table in members)
        notes = dict.fromkeys(table.data.note for table in members if table.data.note)
        parts += [tag("h3", split), *facts, *(tag("p", note, class_="note") for note in notes)]
        parts += [_table(table) for table in members]
    return tag("section", tag("h2", name), parts, id=_anchor(name))


def _contents(data: DataInfo) -> Markup:
    """What was prepared for a split: a family may keep the largest component only, or read another file."""
    size = f"{data.nodes:,} nodes · {data.edges:,} directed edges · {data.features:,} features · {data.classes} classes"
    graphs = f"{data.graphs:,} graphs · " if data.graphs > 1 else ""
    return tag("p", f"{graphs}{size} · {data.metric} · contents ", tag("code", data.sha256[:12]), class_="size")


def _table(table: Table) -> Markup:
    axis = scale(table)
    keys = [cell.key for cell in filled(table.entries)]
    head = [tag("th", BY_KEY[key].title, scope="col", class_=_class(key), title=BY_KEY[key].meaning) for key in keys]
    if axis is not None:
        ends = tag("small", f"{percent(axis.low)} to {percent(axis.high)}")
        head.insert(2, tag("th", "Every run", ends, scope="col"))
    bodies = [_section(section, keys, axis, alone=len(table.sections) == 1) for section in table.sections]
    apart = [tag("p", "Separate table: " + ", ".join(table.notes), class_="note")] if table.notes else []
    apart += [tag("p", remark, class_="note") for remark in table.remarks]
    return tag(
        "article",
        tag(
            "h4",
            table.setting,
            tag("small", SETTING_NAMES.get(table.setting, "")),
            tag("small", protocol_text(table.protocol)),
        ),
        apart,
        _box(tag("table", tag("thead", tag("tr", head)), bodies), _where(table)),
        _reasons(table),
        _cost_figures(table),
    )


def _cost_figures(table: Table) -> Markup | None:
    """Score against latency and against training, where rows were measured."""
    found = [(kind, plot) for kind in KINDS if (plot := pareto_plot(table, kind)) is not None]
    if not found:
        return None
    return tag(
        "details",
        tag("summary", "Score against cost; hollow points are beaten in both by another row"),
        [_box(plot, f"{_where(table)}, score against {kind}") for kind, plot in found],
    )


def _section(section: Section, keys: list[str], axis: Scale | None, *, alone: bool) -> Markup:
    width = len(keys) + (axis is not None)
    title = tag("span", section.title, tag("small", section.note) if section.note else None)
    lead = None if alone else tag("tr", tag("th", title, colspan=width, scope="rowgroup"), class_="group")
    return tag("tbody", lead, [_row(entry, keys, axis) for entry in section.entries])


def _row(entry: TableRow, keys: list[str], axis: Scale | None) -> Markup:
    cells = [tag("th", entry.name, scope="row")]
    for key in keys[1:]:
        cells.append(tag("td", _cell(entry, key), class_=_class(key)))
    if axis is not None:
        cells.insert(2, tag("td", strip(entry, axis)))
    states = " ".join(name for name, on in (("bold", entry.bold), ("incomplete", not entry.complete)) if on)
    return tag("tr", cells, class_=states or None)


def _cell(entry: TableRow, key: str) -> Markup:
    if key == "verdict" and entry.verdicts:
        return join([_grade(verdict, exact=True) for verdict in entry.verdicts])
    compared = {"versus": entry.versus, "training": entry.versus_training}.get(key)
    if compared is not None:
        small = tag("small", f"{compared.said}, over {compared.control}")
        return join(estimate_text(compared.estimate), small)
    if key == "score" and entry.preview:
        plain = BY_KEY[key].text(entry).removesuffix(" (preview)")
        return join(plain, tag("mark", "preview"))
    return join(BY_KEY[key].text(entry))


def _grade(verdict: PublishedVerdict, *, exact: bool = False) -> Markup:
    """The verdict in a word and a sign; with its difference and tolerance below when `exact`."""
    kind, sign = verdict.status.replace(" ", "-"), tag("i", SIGNS[verdict.status], aria_hidden="true")
    small = None
    if exact and verdict.difference is not None:
        small = tag("small", f"{verdict.difference:+.2f}, tolerance {verdict.tolerance:.2f}")
    return tag("div", sign, verdict.status, small, class_=f"grade {kind}", title=verdict.why)


def _where(table: Table) -> str:
    return " · ".join([table.dataset, *table.heading])


def _sources(board: Board) -> list[Markup]:
    """One item per publication that is compared: source, evidence, caveats."""
    facts: dict[str, dict[str, None]] = {}
    for _, _, verdict in board.compared:
        p = verdict.published
        facts.setdefault(verdict.claim, {}).update(dict.fromkeys((p.source, p.evidence, p.verified, *p.caveats)))
    return [tag("li", tag("b", claim), ": ", "; ".join(parts)) for claim, parts in facts.items()]


def _summary(summary: Summary) -> Markup:
    """Means over the data sets of one split id and setting, ranks of complete rows."""
    head = [tag("th", "Row", scope="col")]
    head += [tag("th", name, scope="col", class_="num") for name in (*summary.datasets, *SUMMARY_TITLES)]
    rows = []
    for row in summary.rows:
        texts = [*summary_scores(row), *summary_numbers(row)]
        name = tag("small", f"↳ {row.name}") if row.parent else row.name
        rows.append(tag("tr", tag("th", name, scope="row"), [tag("td", text, class_="num") for text in texts]))
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows))
    marks = tag("small", summary.title), tag("small", protocol_text(summary.protocol))
    said = tag("p", f"{summary.said} {tested(summary.test)}".strip(), class_="size")
    return tag("article", tag("h4", summary.setting, marks), said, _box(table, ", ".join(summary.heading)))


def _across(board: Board) -> Markup | None:
    if not board.summaries:
        return None
    text = f"Rows trained alone, and the students of one teacher. {SUMMARY_READS}"
    lead = tag("p", text, class_="size")
    parts: list[Markup] = []
    for split, members in groupby(board.summaries, key=lambda summary: summary.split):
        parts += [tag("h3", split), *map(_summary, members)]
    return tag("section", tag("h2", "Across data sets"), lead, parts, id="across")


def _reasons(table: Table) -> Markup | None:
    """Why rows with a published number are not compared, folded away."""
    reasons = dict.fromkeys(
        (entry.name, entry.variant, verdict.claim, verdict.why)
        for entry in table.entries
        for verdict in entry.verdicts
        if verdict.status == "not comparable"
    )
    if not reasons:
        return None
    lines = [
        tag("li", f"{name} ({variant.replace('_', ' ')}) and {claim}: {why}") for name, variant, claim, why in reasons
    ]
    return tag("details", tag("summary", f"{len(lines)} not comparable, and why"), tag("ul", lines))


def _failures(board: Board) -> Markup | None:
    if not board.failures:
        return None
    items = [
        tag("li", tag("b", f.status), f" {f.label} on {f.dataset}, {f.split}, run {f.index}:{f.seed}"
            f"{' in ' + f.phase if f.phase else ''}: {f.reason}", tag("pre", f.command))
        for f in board.failures
    ]  # fmt: skip
    return tag("section", tag("h2", "Failed runs"), tag("ul", items, class_="plain"), id="failures")


def _missing(board: Board) -> Markup | None:
    if not board.missing:
        return None
    items = []
    for item in board.missing:
        e = item.expected
        taught = f", taught by {e.teacher}" if e.teacher else ""
        items.append(
            tag("li", f"{e.label}{taught} on {e.dataset}, {e.split}, {e.setting}: {len(item.runs)} of {len(e.runs)}")
        )
    return tag("section", tag("h2", "Missing runs"), tag("ul", items, class_="plain"), id="missing")


def _glossary() -> Markup:
    terms = [tag("div", tag("dt", cell.title), tag("dd", cell.meaning)) for cell in CELLS]
    strip_term = tag("div", tag("dt", "Every run"), tag("dd", "One dot per run on the table's common axis, the mean "
                     "as a stroke, the published number as a diamond."))  # fmt: skip
    sections = tag("div", tag("dt", "Sections"), tag("dd", "Rows of one section share their teacher, run by run. "
                   "Released forms, and rows with a release's own teacher, stand apart."))  # fmt: skip
    return tag(
        "section", tag("h2", "How to read"), tag("dl", terms, strip_term, sections, class_="terms"), id="reading"
    )


def _footer(board: Board) -> Markup:
    lines = []
    for name in ("gkdbench", "git_commit", "python", "torch", "triton", "platform", "cpu", "gpu"):
        values = [str(value) for value in dict.fromkeys(getattr(p, name) for p in board.provenance) if value]
        if values:
            lines.append(tag("div", tag("dt", name.replace("_", " ")), tag("dd", ", ".join(values))))
    if any(p.git_dirty for p in board.provenance):
        lines.append(tag("div", tag("dt", "warning"), tag("dd", "some records were made from modified sources")))
    if board.mixed:
        told = f"{len(board.mixed)} of {board.records} records have rows of more than one origin"
        shown = "; ".join(board.mixed[:5]) + ("; ..." if len(board.mixed) > 5 else "")
        lines.append(tag("div", tag("dt", "mixed origin"), tag("dd", f"{told}: {shown}")))
    versions = ", ".join(map(str, board.protocol_versions)) or "none"
    keys = {
        entry.key: f"{table.dataset}, {table.split}: {entry.label}" for table in board.tables for entry in table.entries
    }
    listing = [tag("li", tag("code", key[:12]), f" {where}") for key, where in sorted(keys.items(), key=lambda i: i[1])]
    return tag(
        "footer",
        tag("h2", "Where this comes from"),
        tag("dl", tag("div", tag("dt", "protocol"), tag("dd", versions)), lines, class_="terms"),
        tag("details", tag("summary", f"{len(keys)} records behind these tables"), tag("ul", listing)),
    )


def _box(table: Markup, name: str) -> Markup:
    """A table that scrolls inside its own box, reachable by keyboard."""
    return tag("div", table, class_="box", tabindex=0, role="region", aria_label=name)


def _class(key: str) -> str | None:
    return None if key in TEXT_CELLS else "num"


def _anchor(name: str) -> str:
    return "data-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
