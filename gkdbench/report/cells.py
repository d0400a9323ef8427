"""What a row shows, as text: one list of columns, read by every renderer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gkdbench.report.cost import NOT_MEASURED, cost_text
from gkdbench.report.model import FLAT_TEACHER, ControlComparison, TableRow
from gkdbench.report.published import PublishedVerdict
from gkdbench.report.statistics import Estimate


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table: its title, what it means, and its text for a row."""

    key: str
    title: str
    meaning: str
    text: Callable[[TableRow], str]


def percent(value: float) -> str:
    """A score of [0, 1] in percent, two decimals."""
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of scores in points, signed; never "-0.00"."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def count(value: int | None) -> str:
    """A number of parameters or multiply-adds: 812, 23.1k, 1.9M."""
    if value is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def score(entry: TableRow) -> str:
    """Mean ± std, always with the mark of a preview; an incomplete row has "incomplete" in place of a mean."""
    found = entry.mean_std
    if found is None:
        return f"incomplete, {entry.done}/{len(entry.planned)}"
    mean, std = found
    spread = f" ± {percent(std)}" if std is not None else ""
    return f"{percent(mean)}{spread}{' (preview)' if entry.preview else ''}"


def verdict_text(verdict: PublishedVerdict) -> str:
    """The verdict with its difference and tolerance in points; the notes have the reason if there is none."""
    if verdict.difference is None or verdict.tolerance is None:
        return verdict.status
    return f"{verdict.status} ({verdict.difference:+.2f}, tol {verdict.tolerance:.2f})"


def number(verdict: PublishedVerdict) -> str:
    """The published number as published."""
    std = "" if verdict.published.std is None else f" ± {float(verdict.published.std)}"
    return f"{float(verdict.published.mean)}{std}"


def _runs(entry: TableRow) -> str:
    others = [f", {number} {status}" for status, number in sorted(entry.statuses.items()) if status != "ok"]
    return f"{entry.done}/{len(entry.planned)}{''.join(others)}{''.join(f', {text}' for text in flagged(entry))}"


def flagged(entry: TableRow) -> list[str]:
    """How many runs carry which flag: ``3 collapsed``."""
    return [f"{number} {SAID.get(flag, flag.replace('_', ' '))}" for flag, number in sorted(entry.flags.items())]


SAID = {FLAT_TEACHER: "taught by a flat teacher"}
"""Flag -> how it is said of several runs, where that is not the flag itself."""


def _versus(found: ControlComparison | None) -> str:
    return "–" if found is None else f"{estimate_text(found.estimate)}: {found.said}"


def interval_text(interval: tuple[float, float], shown: Callable[[float], str] = points) -> str:
    """``[-0.10, +0.42]``; an end that so few runs do not bound is open."""
    low, high = interval
    ends = shown(low) if math.isfinite(low) else "-∞", shown(high) if math.isfinite(high) else "+∞"
    return f"[{ends[0]}, {ends[1]}]"


def estimate_text(found: Estimate) -> str:
    """Difference, interval, own p and family-wise p; empty where there is no number."""
    if found.test is None:
        return "–"
    family = "" if found.p_family is None else f", family {found.p_family:.2g}"
    return f"{points(found.test.difference)} {interval_text(found.test.interval)} p={found.test.p_value:.2g}{family}"


CELLS = (
    TableColumn(
        "row",
        "Row",
        "Method and configuration. Peers are averaged; their ensemble, and the peer that is best on "
        "validation, are rows of their own.",
        lambda e: e.name,
    ),
    TableColumn(
        "score",
        "Score",
        "Test score in percent of the epoch that validation selected: mean ± unbiased standard "
        "deviation (ddof=1) over runs. Fewer than ten runs are marked as a preview; a row that lacks a planned run has "
        "no mean.",
        score,
    ),
    TableColumn(
        "n",
        "Runs",
        "Runs with a score / runs planned, one per (split index, seed). Failed runs are listed with the "
        "command that repeats them. Runs with a flag (collapsed, unstable, loss spike, flat) count with their score. "
        "Flat: the cross-entropy of a selected model on its own training items is above 0.45 of that of equal "
        "probabilities; not recorded under protocol 1.",
        _runs,
    ),
    TableColumn(
        "gap",
        "Audit",
        "Audit gap in points: by how much the best test epoch beats the selected one, on average; none where there "
        "was one epoch, as of an ensemble. It is what a stopping rule that looks at the test set would add. Nothing is "
        "selected, sorted or set in bold by it.",
        lambda e: "–" if e.gap is None else points(e.gap),
    ),
    TableColumn(
        "published",
        "Published",
        "The publication's number for this row on this split, in percent.",
        lambda e: "; ".join(number(v) for v in e.verdicts) or "–",
    ),
    TableColumn(
        "verdict",
        "Verdict",
        "Ours against the published number: reproduced within max(0.5 points, 2 standard errors), "
        "close within twice that. Not comparable when split, setting, metric, teacher, form or the number of runs "
        "differ.",
        lambda e: "; ".join(verdict_text(v) for v in e.verdicts) or "–",
    ),
    TableColumn(
        "versus",
        "Against control",
        "Mean paired difference in points to the control (trained alone, no dearer at inference) that leaves the "
        "smallest one; its 95% interval and p value by the sign-flip test; the family-wise p value over all lines of "
        "the section against all their controls (step-down max-T). Better or worse: the latter is below 0.05. Equal: "
        "surely within 0.5 points. Else not resolved, with the runs needed. Bold: better than every control, one of "
        "which costs as much, and the same controls on every data set.",
        lambda e: _versus(e.versus),
    ),
    TableColumn(
        "training",
        "At equal training cost",
        "Rows of peers once more, whatever inference costs: against the strongest row trained alone whose models took "
        "no more multiply-adds to train (of all models, times their epochs), such as the best of as many solo models, "
        "or their ensemble.",
        lambda e: _versus(e.versus_training),
    ),
    TableColumn("needs", "Needs", "What the deployed model reads at inference.", lambda e: e.needs or "–"),
    TableColumn("parameters", "Parameters", "Trained weights of the deployed model.", lambda e: count(e.parameters)),
    TableColumn(
        "macs", "MACs", "Multiply-adds of one inference over all items, divided by the items.", lambda e: count(e.macs)
    ),
    TableColumn(
        "inference",
        "Inference",
        "Time of the answers for all items in one call, over that of the reference in the same process (MLP 2x128; GIN "
        "on graphs), with its 95% interval; below 1 is faster. Measured by `cost@1` (docs/cost.md).",
        lambda e: cost_text(e.cost, "inference"),
    ),
    TableColumn(
        "latency",
        "Latency",
        "Time of one query for one item, over that of the reference: a model that needs the graph reads it, or the "
        "nodes around the item where that gives the same answer sooner.",
        lambda e: cost_text(e.cost, "latency"),
    ),
    TableColumn(
        "epoch",
        "Training epoch",
        "Time of one epoch of training, in the stage in which the deployed model is selected, over that of the "
        "reference (GCN 2x64; GIN on graphs).",
        lambda e: cost_text(e.cost, "training"),
    ),
    TableColumn(
        "energy",
        "Energy, J",
        "Of training, mean over runs: what the processors (and the GPU) used in that time, whatever else ran there. "
        "There where the machine's counters could be read.",
        lambda e: "–" if e.train_j is None else count(round(e.train_j)),
    ),
)


def filled(entries: Sequence[TableRow]) -> list[TableColumn]:
    """The columns in which some row of a table has a value, and the score."""
    empty = ("–", NOT_MEASURED)
    return [cell for cell in CELLS if cell.key == "score" or any(cell.text(entry) not in empty for entry in entries)]


BY_KEY = {cell.key: cell for cell in CELLS}
