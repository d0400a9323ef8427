"""Trains a random sample of published rows again: what `verify` cannot see, predictions that no training gave, shows
here. docs/protocol.md, section 4.7, says how many rows find how much."""

from __future__ import annotations

import math
import random
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkdbench.data.datasets import available
from gkdbench.errors import UserError
from gkdbench.execute.api import RunSettings, device_class, job_count, pick_device, run_plan
from gkdbench.execute.cell import Cell, Group, with_teachers
from gkdbench.execute.grid import GroupMaker, dataset_of
from gkdbench.execute.plan import Plan
from gkdbench.execute.progress import Progress, Silent
from gkdbench.execute.suite import Grid, MethodEntry, Suite
from gkdbench.execute.verification.findings import StoredRun
from gkdbench.records.schema import PROTOCOL_VERSION, Provenance, Record, Row
from gkdbench.records.store import Store, load_record, record_paths
from gkdbench.training.resolve import resolve_stored

NEAR = 0.005
"""Largest difference of a score between machines, torch versions or commits: half a point."""
SHARES = (0.05, 0.2, 0.5)
"""Shares of forged rows whose chance of being found is printed."""


@dataclass(frozen=True, eq=False)
class Rerun:
    """One row after it was trained again.

    Args:
        compared: "bits" where commit, torch and processor are the row's own, else "scores".
        equal_bits: whether weights and predictions are the stored ones.
        problem: what differs; None: nothing.
    """

    run: StoredRun
    compared: str
    equal_bits: bool
    problem: str | None

    def line(self) -> str:
        """What happened, in one line."""
        if self.problem is not None:
            return f"{self.run}: {self.problem}"
        how = "equal to the bit" if self.equal_bits else f"every score within {100 * NEAR} points"
        return f"{self.run}: {how}"


@dataclass(eq=False)
class RerunReport:
    """What training a sample again found.

    Args:
        seed: of the draw; the same seed draws the same rows from the same folder.
        candidates: rows that could have been drawn.
        reruns: one for each row drawn.
        left_out: why records cannot be trained here -> how many.
    """

    seed: int
    candidates: int
    reruns: list[Rerun] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """One line for each row that did not come again."""
        return [rerun.line() for rerun in self.reruns if rerun.problem is not None]

    def chance(self, share: float) -> float:
        """The probability that a draw like this has at least one of the rows, if `share` of the candidates are
        forged (rounded up to whole rows)."""
        forged = math.ceil(share * self.candidates)
        drawn = len(self.reruns)
        return 1.0 - math.comb(self.candidates - forged, drawn) / math.comb(self.candidates, drawn)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        rows = [
            {"row": str(one.run), "compared": one.compared, "equal_bits": one.equal_bits, "problem": one.problem}
            for one in self.reruns
        ]
        chances = {str(share): self.chance(share) for share in SHARES}
        return {
            "seed": self.seed,
            "candidates": self.candidates,
            "rows": rows,
            "left_out": dict(self.left_out),
            "chance_by_share_of_forged_rows": chances,
        }

    def lines(self) -> list[str]:
        """The report as text."""
        found = [("wrong: " if one.problem else "") + one.line() for one in self.reruns]
        found += [f"not drawn from {count} records: {why}" for why, count in sorted(self.left_out.items())]
        if self.reruns:
            chances = ", ".join(f"{share:.0%}: {self.chance(share):.2f}" for share in SHARES)
            found.append(
                f"trained {len(self.reruns)} of {self.candidates} rows again (draw: --seed {self.seed}), "
                f"{len(self.problems)} differ; chance that a draw of this size finds one, by share of forged rows: "
                f"{chances}"
            )
        return found


def rerun(
    path: str | Path,
    count: int,
    *,
    seed: int | None = None,
    cheapest: bool = False,
    data: str | Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> RerunReport:
    """Train `count` rows of the records below `path` again, with their teachers, and compare.

    Args:
        path: a folder of records, or one record.
        seed: of the draw; None: drawn, and reported.
        cheapest: draw one row of each method and data set, those with the shortest training first, instead of any rows
            alike.
        data: folder of raw files; None: ``$GKDBENCH_DATA``.
        jobs: cells at a time.

    Raises:
        UserError: `count` is below 1, no row can be trained here, or a worker does not start.
    """
    if count < 1:
        raise UserError(f"--rerun: expected 1 or more rows, got {count}; try --rerun 3")
    chosen_seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    report = RerunReport(chosen_seed, 0)
    folder = None if data is None else Path(data)
    candidates = list(_candidates(Path(path), folder, report))
    report.candidates = len(candidates)
    if not candidates:
        why = "; ".join(f"{reason} ({number} records)" for reason, number in report.left_out.items()) or "no rows"
        raise UserError(f"{path}: expected rows that can be trained again here, got none: {why}")
    drawn = draw(candidates, count, chosen_seed, cheapest=cheapest)
    for threads in sorted({run.record.threads for run, _ in drawn}):
        same = [(run, cell) for run, cell in drawn if run.record.threads == threads]
        report.reruns += _train(same, threads, folder, jobs, progress or Silent())
    return report


def draw(
    candidates: Sequence[tuple[StoredRun, Cell]], count: int, seed: int, *, cheapest: bool
) -> list[tuple[StoredRun, Cell]]:
    """`count` of the candidates (all, where there are fewer), by a generator that `seed` starts."""
    generator = random.Random(seed)
    if not cheapest:
        return generator.sample(candidates, min(count, len(candidates)))
    strata: dict[tuple[str, str], list[tuple[StoredRun, Cell]]] = defaultdict(list)
    for candidate in candidates:
        strata[candidate[0].record.method, candidate[0].record.dataset].append(candidate)
    for members in strata.values():
        generator.shuffle(members)
    ordered = sorted(
        strata.values(), key=lambda members: statistics.median(run.row.train_s or 0.0 for run, _ in members)
    )
    rounds = (members[at] for at in range(max(map(len, ordered))) for members in ordered if at < len(members))
    return [candidate for candidate, _ in zip(rounds, range(count), strict=False)]


def _candidates(path: Path, data: Path | None, report: RerunReport) -> Iterator[tuple[StoredRun, Cell]]:
    device = device_class(pick_device("auto"))
    for found in record_paths(path, studies=True):
        try:
            record = load_record(found)
            group = _group(record, data, device)
        except UserError as error:
            report.left_out[str(error).splitlines()[0]] += 1
            continue
        for row in record.rows:
            if row.status == "ok":
                yield StoredRun(found, record, row), Cell(group, row.index, row.seed)


def _group(record: Record, data: Path | None, device: str) -> Group:
    """The group of a record, made from its settings by this code.

    Raises:
        UserError: says why it cannot be made here.
    """
    if record.protocol_version != PROTOCOL_VERSION:
        raise UserError(f"made under protocol {record.protocol_version}, this code trains by {PROTOCOL_VERSION}")
    if record.device != device:
        raise UserError(f"made on {record.device}, here is {device}")
    if not available(dataset_of(record.dataset, record.split), data=data):
        raise UserError(f"the files of {record.dataset} are not there")
    method = resolve_stored(record.method, record.config)
    maker = GroupMaker(_suite(record), data, device, record.threads)
    group = maker.group(method, record.dataset, record.split, record.tuning, dict(record.sweeps))
    if group.key != record.key:
        raise UserError("their key is another one by this code: another revision of the method, or other data")
    return group


def _suite(record: Record) -> Suite:
    """What `GroupMaker` needs of a suite: how the record was made, and the settings of its teachers."""
    teachers = {teacher.method: dict(teacher.config) for teacher in record.teachers.values()}
    grid = Grid(datasets=[record.dataset], splits=[record.split], methods=[MethodEntry(method=record.method)])
    return Suite(
        name="rerun",
        seeds=(0,),
        audit_every=record.audit_every,
        selection=record.selection,
        grids=[grid],
        requirement_overrides={record.dataset: teachers},
    )


def _train(
    drawn: Sequence[tuple[StoredRun, Cell]], threads: int, data: Path | None, jobs: int | None, progress: Progress
) -> list[Rerun]:
    cells = with_teachers(cell for _, cell in drawn)
    required = frozenset(teacher.key for cell in cells for teacher in cell.requires.values())
    plan = Plan(_suite(drawn[0][0].record), cells, [], [], required, [], 0, 0.0, len(cells), 0)
    settings = RunSettings(jobs=job_count(jobs, threads), device=pick_device("auto"), threads=threads, data=data)
    with tempfile.TemporaryDirectory(prefix="gkdbench-rerun-") as folder:
        store = Store(folder)
        run_plan(plan, store, progress, settings)
        found = []
        for run, cell in drawn:
            again = store.group(cell.group.address)
            row = store.row(cell.address)
            here = again.provenance_of(row) if again is not None and row is not None else Provenance()
            found.append(compared(run, row, here))
    return found


def compared(run: StoredRun, again: Row | None, here: Provenance) -> Rerun:
    """The stored row beside the one that was trained now, whose provenance is `here`."""
    stored, before = run.row, run.record.provenance_of(run.row)
    same_machine = (before.git_commit, before.torch, before.cpu) == (here.git_commit, here.torch, here.cpu)
    same_machine &= not before.cpu_flags or before.cpu_flags == here.cpu_flags  # older rows hold none
    bits = same_machine and before.git_commit is not None and not (before.git_dirty or here.git_dirty)
    how = "bits" if bits else "scores"
    if again is None or again.status != "ok":
        got = "no row" if again is None else f"{again.status} ({again.reason})"
        return Rerun(run, how, False, f"expected status ok as stored, got {got}")
    weights = [model.weights_sha256 for model in again.models] == [model.weights_sha256 for model in stored.models]
    equal = weights and again.predictions_sha256 == stored.predictions_sha256
    problem = next(_differences(stored, again), None)
    if bits and not equal and problem is None:
        what = "predictions" if weights else "weights"
        problem = f"expected equal bits on the same commit, torch and processor, got other {what}"
    return Rerun(run, how, equal, problem)


def _differences(stored: Row, again: Row) -> Iterator[str]:
    """Scores that are further apart than `NEAR`."""
    models = {model.name: model for model in again.models}
    for model in stored.models:
        if model.name not in models:
            yield f"expected a model {model.name!r} as stored, got {', '.join(models) or 'none'}"
            continue
        new = models[model.name]
        before = {"val": model.val} | {column: score.value for column, score in model.scores.items()}
        after = {"val": new.val} | {column: score.value for column, score in new.scores.items()}
        for column, value in before.items():
            if column not in after or abs(after[column] - value) > NEAR:
                got = f"{100 * after[column]:.1f}" if column in after else "none"
                yield f"{model.name}: stored {column} is {100 * value:.1f}, trained again it is {got}"
