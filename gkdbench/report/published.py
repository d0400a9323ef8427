"""Published numbers, and when ours reproduce them (docs/protocol.md, section 7)."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from gkdbench.errors import UserError
from gkdbench.records.schema import Record
from gkdbench.report.protocols import follows_protocol
from gkdbench.report.statistics import MIN_RUNS, mean_std

VerdictStatus = Literal["reproduced", "close", "not reproduced", "not comparable"]
DEFAULT_RUNS = 10  # of a publication that does not state it
UNTRUSTED = ("recalled", "not re-checked", "not checked")  # evidence or verification that no comparison may rest on
UNCHECKED = "the published number is "  # how the reason begins where the number is one of those
METRIC_NAMES = {"accuracy": "accuracy", "micro_f1": "micro-F1", "rocauc": "ROC-AUC"}


@dataclass(frozen=True, slots=True)
class Published:
    """One published number with its source. `mean` and `std` are in `unit`, percent for scores."""

    method: str
    teacher: str | None
    student: str | None
    dataset: str
    setting: str
    split_protocol: str
    metric: str
    unit: str
    mean: float
    std: float | None
    n_runs: int | None
    source: str
    evidence: str
    caveats: tuple[str, ...]
    verified: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Which records answer which published rows; see ``claims.toml``."""

    name: str
    method: str
    form: Literal["as_released", "plain"]
    split: str
    datasets: dict[str, str]
    published: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] | None = None
    score: Literal["selected", "peak"] = "selected"
    tolerance: float | None = None
    refuse: str | None = None

    def covers(self, record: Record) -> bool:
        """Is `record` a row of this claim, comparable or not?"""
        return (
            record.method == self.method
            and record.split == self.split
            and record.dataset in self.datasets
            and not _differing(record.config, self.config)
        )

    def number(self, dataset: str, setting: str) -> Published | None:
        """The one published row of our `dataset` in the reported `setting`, or None."""
        wanted = self.published | {"dataset": self.datasets[dataset], "setting": setting, "split_protocol": self.split}
        source = wanted.pop("source")
        found = [
            row
            for row in published()
            if row.source.startswith(source) and all(getattr(row, name) == value for name, value in wanted.items())
        ]
        if len(found) > 1:
            raise UserError(f"claim {self.name!r} fits {len(found)} published rows of {dataset}, {setting}; narrow it")
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class PublishedVerdict:
    """Ours against one published number; all numbers in percent.

    A number that nobody checked against its source is not comparable, and has a difference all the same.
    """

    claim: str
    status: VerdictStatus
    published: Published
    why: str  # the reason when not comparable, else which score was compared
    difference: float | None = None  # ours - published
    tolerance: float | None = None

    @property
    def grade(self) -> VerdictStatus:
        """The grade by the difference alone."""
        if self.difference is None or self.tolerance is None:
            return "not comparable"
        return grade(self.difference, self.tolerance)


@cache
def published() -> tuple[Published, ...]:
    """Every number of ``published.json``."""
    text = files("gkdbench.report").joinpath("published.json").read_text(encoding="utf-8")
    return tuple(Published(**row | {"caveats": tuple(row["caveats"])}) for row in json.loads(text))


@cache
def claims() -> tuple[Claim, ...]:
    """Every claim of ``claims.toml``."""
    data = tomllib.loads(files("gkdbench.report").joinpath("claims.toml").read_text(encoding="utf-8"))
    return tuple(Claim(**row | {"datasets": data["datasets"][row["datasets"]]}) for row in data["claim"])


def verdicts(
    record: Record, setting: str, selected: Sequence[float], peak: Sequence[float], *, complete: bool
) -> list[PublishedVerdict]:
    """Verdicts on one reported setting of `record`, one per publication that has this row.

    Args:
        record: the group of runs; its method, configuration, split, teacher and form are checked.
        setting: reported setting ("tran", "ind", "prod", ...).
        selected, peak: per run the selected score and the test peak, in [0, 1].
        complete: every planned run has a score.
    """
    found = []
    for claim in claims():
        number = claim.number(record.dataset, setting) if claim.covers(record) else None
        if number is not None:
            scores = peak if claim.score == "peak" else selected
            found.append(verdict(claim, number, record, scores, complete=complete))
    return found


def verdict(
    claim: Claim, number: Published, record: Record, scores: Sequence[float], *, complete: bool
) -> PublishedVerdict:
    """docs/protocol.md, section 7, on one pair: the first condition that fails makes it "not comparable".

    Tolerance: max(0.5 points, 2 SE), with a floor of 1.0 for ROC-AUC and TU folds, SE = sqrt(s^2/n + s_pub^2/n_pub); a
    missing s_pub is ours, a missing n_pub is 10.
    """
    why = _obstacle(claim, number, record, len(scores), complete)
    if why:
        return PublishedVerdict(claim.name, "not comparable", number, why)
    mean, std = (100.0 * (value or 0.0) for value in mean_std(scores))
    published_std = std if number.std is None else number.std
    error = math.sqrt(std**2 / len(scores) + published_std**2 / (number.n_runs or DEFAULT_RUNS))
    floor = 1.0 if record.data.metric == "rocauc" or record.split.startswith("tu-10fold") else 0.5
    tolerance = max(floor, 2 * error) if claim.tolerance is None else claim.tolerance
    difference = mean - number.mean
    if any(mark in (number.evidence, *number.verified.split(" (")) for mark in UNTRUSTED):
        return PublishedVerdict(
            claim.name, "not comparable", number, f"{UNCHECKED}{number.verified}", difference, tolerance
        )
    return PublishedVerdict(
        claim.name, grade(difference, tolerance), number, f"{claim.score} score", difference, tolerance
    )


def grade(difference: float, tolerance: float) -> VerdictStatus:
    """Reproduced within `tolerance`, close within twice of it, both in points."""
    distance = round(abs(difference), 9)  # a difference of exactly the tolerance must not fail by rounding
    if distance <= tolerance:
        return "reproduced"
    return "close" if distance <= 2 * tolerance else "not reproduced"


def _obstacle(claim: Claim, number: Published, record: Record, runs: int, complete: bool) -> str | None:
    """Why the two may not be compared, or None."""
    teacher = record.teachers.get("teacher")
    least = 5 if number.n_runs == 5 else MIN_RUNS
    if claim.refuse:
        return claim.refuse
    if METRIC_NAMES.get(record.data.metric) != number.metric or number.unit != "%":
        return f"metric {record.data.metric} against {number.metric} in {number.unit}"
    if record.tier != "published":
        return "tuned by us"
    if not follows_protocol(record):
        return f"another rule of selection: {record.selection}"
    if claim.form == "as_released" and record.variant != "as_released":
        return "corrected form; the published number belongs to the released code (see as released)"
    if other := _differing(record.config, claim.settings):
        return f"other settings: {', '.join(other)}"
    if claim.teacher is not None:
        if teacher is None:
            return "no teacher on record"
        if other := _differing(teacher.config, claim.teacher):
            return f"other teacher, {teacher.label}: {', '.join(other)}"
    if not complete:
        return f"incomplete: {runs} runs have a score"
    if runs < least:
        return f"{runs} runs; {least} are needed"
    return None


def _differing(config: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """``name=value, expected value`` of each expected field that differs, nested ones entered; "" stands for none."""
    found = []
    for name, value in wanted.items():
        own = config.get(name)
        if isinstance(value, dict):
            found += _differing(own if isinstance(own, dict) else {}, value, f"{prefix}{name}.")
        elif ("" if own is None else list(own) if isinstance(own, tuple) else own) != value:
            found.append(f"{prefix}{name}={own!r}, published {value!r}")
    return found
