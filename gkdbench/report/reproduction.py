"""How many published numbers our records reproduce (protocol.md, section 7): one page, one count for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from gkdbench.errors import UserError, nearest
from gkdbench.records.schema import Fraction, Record, TomlModel
from gkdbench.report.cells import score
from gkdbench.report.entries import entries
from gkdbench.report.markdown import plain, table
from gkdbench.report.model import Board, Table, TableRow
from gkdbench.report.protocols import best_protocol, protocol_text
from gkdbench.report.published import UNCHECKED, Claim, Published, PublishedVerdict, claims
from gkdbench.report.tomlpage import read_page
from gkdbench.report.trainingspread import SEEDS, STUDY, TrainingJudgement, judged_by_training

SETTINGS = ("tran", "ind", "prod", "graph")
NOT_RUN = "not run"
GRADES = ("reproduced", "close", "not reproduced")


class PublishedGroup(TomlModel):
    """Published rows that are counted together.

    Args:
        says: its heading. reads: the text under it.
        claims: names of claims (``claims.toml``).
        reproduced: target share of the compared rows that are reproduced. close: reproduced or close.
        marked: data set -> why its rows count with a mark.
        unchecked: rows that nobody checked against their source; they are graded here and nowhere else.
    """

    says: str
    reads: str = ""
    claims: Annotated[list[str], Field(min_length=1)]
    reproduced: Fraction | None = None
    close: Fraction | None = None
    marked: dict[str, str] = {}
    unchecked: bool = False

    @model_validator(mode="after")
    def _claims_are_known(self) -> PublishedGroup:
        known = {claim.name for claim in claims()}
        for name in self.claims:
            if name not in known:
                raise ValueError(f"no claim {name!r} in claims.toml; {nearest(name, known)}")
        return self


class Note(TomlModel):
    """What was tried where a number was not reproduced; `datasets` and `settings` as the publication names them."""

    claim: str
    datasets: Annotated[list[str], Field(min_length=1)]
    settings: Annotated[list[str], Field(min_length=1)]
    says: str


class ReproductionPage(TomlModel):
    """The page: text around counts and tables that are made from records."""

    title: str
    intro: str
    outro: str = ""
    group: Annotated[list[PublishedGroup], Field(min_length=1)]
    note: list[Note] = []


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """One published number and our number for it.

    Attributes:
        status: of `GRADES`, "not run", or "not comparable" where a claim refuses.
    """

    claim: str
    published: Published
    status: str
    why: str
    board_table: Table | None = None
    entry: TableRow | None = None
    verdict: PublishedVerdict | None = None
    training: TrainingJudgement | None = None  # where our splits are the publication's

    @property
    def graded(self) -> bool:
        return self.status in GRADES


def load_page(path: Path) -> ReproductionPage:
    """The page that a TOML file describes.

    Raises:
        UserError: no file, not valid TOML, an unknown key or claim, or a wrong type.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a TOML file like docs/reproduction.toml, got no file")
    return read_page(path, ReproductionPage)


def lines_of(group: PublishedGroup, board: Board) -> list[PublishedComparison]:
    """A line for every published number of the group's claims, compared or not.

    Our rows are all of one protocol: the one under which most numbers are compared, of equal ones the newest.
    """
    by_name = {claim.name: claim for claim in claims()}

    def lines(version: int | None) -> list[PublishedComparison]:
        tables = [table for table in board.tables if table.protocol == version]
        return [_line(by_name[name], row, group, tables) for name in group.claims for row in numbers(by_name[name])]

    versions = (table.protocol for table in board.tables)
    return lines(best_protocol(versions, lambda version: (sum(line.graded for line in lines(version)),)))


def numbers(claim: Claim) -> list[Published]:
    """Every published row of `claim`, once (two of our names may mean one data set)."""
    found = (claim.number(dataset, setting) for setting in SETTINGS for dataset in claim.datasets)
    return list(dict.fromkeys(row for row in found if row is not None))


def _line(claim: Claim, row: Published, group: PublishedGroup, tables: Sequence[Table]) -> PublishedComparison:
    answers = [
        (board_table, entry, verdict)
        for board_table in tables
        for entry in board_table.entries
        for verdict in entry.verdicts
        if verdict.claim == claim.name and verdict.published == row
    ]
    for board_table, entry, verdict in answers:
        status = verdict.grade if group.unchecked and verdict.why.startswith(UNCHECKED) else verdict.status
        if status in GRADES:
            return PublishedComparison(claim.name, row, str(status), verdict.why, board_table, entry, verdict)
    if claim.refuse:
        return PublishedComparison(claim.name, row, "not comparable", claim.refuse)
    released = [verdict.why for _, entry, verdict in answers if entry.variant == "as_released" or claim.form == "plain"]
    return PublishedComparison(claim.name, row, NOT_RUN, released[0] if released else "no record")


def reproduction_page(path: Path, board: Board, seeds: Sequence[Record] = ()) -> str:
    """The Markdown of the page that `path` describes.

    Args:
        seeds: records of the study `gkdbench.report.trainingspread.STUDY`: further training seeds of published rows.
    """
    page = load_page(path)
    further = {record.key: record for record in seeds}
    groups = [(group, [_trained(line, further) for line in lines_of(group, board)]) for group in page.group]
    parts = [f"# {page.title}", page.intro.strip(), _overview(groups)]
    for group, lines in groups:
        parts += [f"## {plain(group.says)}"]
        parts += [group.reads.strip()] if group.reads else []
        parts += [_promise(group, lines), _details(group, lines)]
        versions = {line.board_table.protocol for line in lines if line.board_table is not None}
        parts += [f"Our rows: {protocol_text(version)}." for version in versions]
        parts += _by_training(lines)
        parts += [f"\\* {plain(dataset)}: {why}" for dataset, why in group.marked.items()]
        if off := [line for line in lines if line.status in GRADES[1:]]:
            parts.append("Not reproduced, or close only, and what was tried:")
            parts.append("\n".join(f"- {_where(line)}: {_tried(page.note, line)}" for line in off))
    if page.outro:
        parts.append(page.outro.strip())
    return "\n\n".join(parts) + "\n"


def counts_text(path: Path, board: Board) -> str:
    """A line per group of the page that `path` describes, for the terminal."""
    page = load_page(path)
    found = []
    for group in page.group:
        lines = lines_of(group, board)
        found.append(f"{group.says}: {_count(lines)}. {_promise(group, lines)}")
        silent = [line for line in lines if line.status in GRADES[1:] and _note(page.note, line) is None]
        found += [f"  no paragraph yet: {_where(line)}" for line in silent]
    return "\n".join(found)


def _trained(line: PublishedComparison, further: Mapping[str, Record]) -> PublishedComparison:
    """`line` with its judgement by training alone, where our splits are the publication's and selected scores count."""
    table_, entry = line.board_table, line.entry
    if table_ is None or entry is None or line.verdict is None or not line.graded or "peak" in line.verdict.why:
        return line
    scores = dict(entry.scores)
    if entry.key in further:
        rows = entries(further[entry.key], table_.setting)
        scores |= next((row.scores for row in rows if row.aggregate == entry.aggregate), {})
    judged = judged_by_training(scores, line.published, split=table_.split, dataset=table_.dataset)
    return replace(line, training=judged)


def _by_training(lines: Sequence[PublishedComparison]) -> list[str]:
    """What the stricter tolerance says of the lines that have it, and what the others lack."""
    judged = [line for line in lines if line.training is not None]
    if not judged:
        return []
    tally = Counter(str(line.training.grade) for line in judged if line.training)
    counts = ", ".join(f"{tally[status]} {status}" for status in GRADES if tally[status]) or "none judged"
    missing = sum(line.training.tolerance is None for line in judged if line.training)
    text = (
        f"On {len(judged)} of these rows our splits are the publication's own, so that the differences between splits "
        f"are in both means and no part of the error. By the variance of training alone: {counts}"
    )
    text += f"; {missing} lack the {SEEDS} training seeds a split that it takes (study `{STUDY}`)" if missing else ""
    return [f'{text}. Columns "same splits" and "training alone".']


def _count(lines: Sequence[PublishedComparison]) -> str:
    tally = Counter(line.status for line in lines)
    counts = [f"{tally[status]} {status}" for status in (*GRADES, "not comparable", NOT_RUN) if tally[status]]
    return f"{len(lines)} published rows, {sum(line.graded for line in lines)} compared: {', '.join(counts)}"


def _promise(group: PublishedGroup, lines: Sequence[PublishedComparison]) -> str:
    """Shares of the compared rows against the targets, and the same without marked data sets."""
    compared = [line for line in lines if line.graded]
    if not compared:
        return "Nothing is compared yet."
    words = []
    for of, target, grades in (
        ("reproduced", group.reproduced, GRADES[:1]),
        ("reproduced or close", group.close, GRADES[:2]),
    ):
        share = _share(compared, grades)
        met = "" if target is None else f" (target {target:.0%}: {'met' if share >= target else 'not met'})"
        words.append(f"{of} {share:.0%}{met}")
    text = f"Of the compared rows: {', '.join(words)}."
    clean = [line for line in compared if line.published.dataset not in group.marked]
    if clean and len(clean) < len(compared):
        shares = f"{_share(clean, GRADES[:1]):.0%} and {_share(clean, GRADES[:2]):.0%}"
        text += f" Without the {len(compared) - len(clean)} marked ones: {shares}."
    return text


def _share(lines: Sequence[PublishedComparison], grades: Iterable[str]) -> float:
    return sum(line.status in grades for line in lines) / len(lines)


def _overview(groups: Sequence[tuple[PublishedGroup, Sequence[PublishedComparison]]]) -> str:
    rows = []
    for group, lines in groups:
        tally = Counter(line.status for line in lines)
        rows.append([plain(group.says), str(len(lines)), *(str(tally[status]) for status in (*GRADES, NOT_RUN))])
    return table(["Published rows", "All", "Reproduced", "Close", "Not reproduced", "Not run yet"], rows)


def _details(group: PublishedGroup, lines: Sequence[PublishedComparison]) -> str:
    titles = [
        "Publication",
        "Data set",
        "Setting",
        "Published",
        "Ours",
        "Runs",
        "Difference",
        "Tolerance",
        "Verdict",
        "Difference, same splits",
        "Tolerance, training alone",
        "Verdict by it",
    ]
    rows = []
    for line in lines:
        mark = "\\*" if line.published.dataset in group.marked else ""
        own = ["–", "–", "–", "–", plain(f"{line.status}: {line.why}")]
        if line.entry is not None and line.verdict is not None and line.verdict.difference is not None:
            own = [score(line.entry), str(line.entry.done), f"{line.verdict.difference:+.2f}"]
            own += [f"{line.verdict.tolerance:.2f}", line.status]
        own += _strict(line.training)
        where = [plain(line.claim), plain(line.published.dataset) + mark, line.published.setting]
        std = "" if line.published.std is None else f" ± {float(line.published.std)}"
        rows.append([*where, f"{float(line.published.mean)}{std}", *own])
    return table(titles, rows)


def _strict(judged: TrainingJudgement | None) -> list[str]:
    """Difference, tolerance and grade by training alone."""
    if judged is None:
        return ["–", "–", "–"]
    tolerance = "–" if judged.tolerance is None else f"{judged.tolerance:.2f}"
    return [f"{judged.difference:+.2f}", tolerance, plain(judged.grade or judged.missing)]


def _where(line: PublishedComparison) -> str:
    return f"{line.claim}, {line.published.dataset}, {line.published.setting}"


def _note(notes: Sequence[Note], line: PublishedComparison) -> Note | None:
    row = line.published
    fitting = (n for n in notes if n.claim == line.claim and row.dataset in n.datasets and row.setting in n.settings)
    return next(fitting, None)


def _tried(notes: Sequence[Note], line: PublishedComparison) -> str:
    found = _note(notes, line)
    return " ".join(found.says.split()) if found else "no paragraph yet."
