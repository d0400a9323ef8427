"""The plan: what a run would do, and what it would cost, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell, with_teachers
from gkdbench.execute.changed import changed_line, changed_methods
from gkdbench.execute.grid import Absent, expand
from gkdbench.execute.planning.facts import least_bytes
from gkdbench.execute.planning.forecast import forecast
from gkdbench.execute.select import select
from gkdbench.execute.suite import Suite, Tier
from gkdbench.records.schema import Row
from gkdbench.records.store import Store

START_S = 0.8
"""What a cell takes beside its epochs: its process, its data, its row."""


@dataclass(frozen=True)
class Plan:
    """Cells in order of execution.

    Args:
        suite: what was planned.
        todo: cells that will run; teachers before students.
        cached: cells whose rows are in the store already.
        again: cells of `cached` that must be trained once more, because a student needs the teacher's weights and
            only its row is stored (a fresh clone).
        required: keys of cells whose trained model others need.
        absent: data sets whose files are not there.
        waiting: tuned groups whose runs are planned once their trials are done.
        hours: estimated wall-clock time of `todo` on the given number of jobs.
        guessed: how many cells of `todo` are of a method that was never measured on their data set.
        bytes: estimated size of records, side-cars and kept teachers.
        guesses: one cell of each group that `guessed` counts.
        interval: hours that eight of ten such plans end within.
        changed: methods of `cached` whose source is no longer that of their rows, see `gkdbench.execute.changed`.
    """

    suite: Suite
    todo: list[Cell]
    cached: list[Cell]
    again: list[Cell]
    required: frozenset[str]
    absent: list[Absent]
    waiting: int
    hours: float
    guessed: int
    bytes: int
    changed: list[str] = field(default_factory=list)
    guesses: list[Cell] = field(default_factory=list)
    interval: tuple[float, float] = (0.0, 0.0)

    def lines(self) -> list[str]:
        """The plan as text, one fact a line."""
        sure = (
            ""
            if not self.guessed
            else f" ({self.guessed} of {len(self.todo)} cells never measured: a guess from others)"
        )
        found = [
            f"suite {self.suite.full_name}: {len(self.todo) + len(self.cached)} cells, {len(self.cached)} cached, "
            f"{len(self.todo)} to run",
            f"estimated {_hours(self.hours)}, {_hours(self.interval[0])} to {_hours(self.interval[1])} in eight of ten "
            f"such plans{sure}; {self.bytes / 1e6:.1f} MB",
        ]
        if self.again:
            found.append(f"{len(self.again)} teachers are trained again: their rows are stored, their weights are not")
        if self.waiting:
            found.append(f"{self.waiting} tuned rows follow once their trials are done")
        if self.changed:
            found.append(changed_line(self.changed))
        return found + [str(absent) for absent in self.absent]


def make_plan(
    suite: Suite,
    store: Store,
    *,
    data: Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    jobs: int = 1,
    only: Mapping[str, str] | None = None,
    tier: Tier | None = None,
    retry: bool = False,
    rerun: bool = False,
    done: Collection[str] = (),
    max_cells: int | None = None,
) -> Plan:
    """What running `suite` into `store` would do.

    Args:
        device: device class.
        only: see `gkdbench.execute.select`; requirements of the chosen cells come along.
        tier: ``"core"`` leaves out the grids of tier ``full``.
        rerun: run the chosen cells again although they have rows, see `rerun_keys`; and what failed, as `retry`.
        done: keys of cells that `rerun` leaves alone: they have been run again already.
        max_cells: at most so many cells that have to run.

    Raises:
        UserError: anything wrong with the suite, a group of another thread count, or a memory limit that no run of a
            cell can keep.
    """
    threads = threads or suite.threads
    expansion = expand(suite, store, data=data, device=device, threads=threads, only=only)
    chosen = cells = [cell for cell in expansion.cells if tier != "core" or cell.tier == "core"]
    if only:
        chosen = select(cells, only)
        wanted = {cell.key for cell in with_teachers(chosen)}
        cells = [cell for cell in cells if cell.key in wanted]
    for group in {cell.group for cell in cells}:
        store.check_threads(group.address, threads)
    missing = set(store.missing([cell.address for cell in cells], retry=retry or rerun))
    rerun_now = rerun_keys(chosen, expansion.asked, only) - set(done) if rerun else frozenset()
    todo = [cell for cell in cells if cell.address in missing or cell.key in rerun_now][:max_cells]
    again = [cell for cell in _weights_gone(cells, todo, store) if cell.key not in rerun_now]
    todo = [cell for cell in cells if cell in set(todo) | set(again)]
    cached = [
        cell for cell in cells if cell.address not in missing and cell.key not in rerun_now and cell not in set(again)
    ]
    _refuse_too_little_memory(suite, todo)
    expected = forecast(todo, store)
    planned = {cell.key for cell in cells}
    waiting = sum(not trials.isdisjoint(planned) for trials in expansion.waiting)
    required = frozenset(teacher.key for cell in expansion.cells for teacher in cell.requires.values())
    hours, low, high = expected.hours(jobs)
    return Plan(
        suite=suite,
        todo=todo,
        cached=cached,
        again=again,
        required=required,
        absent=expansion.absent,
        waiting=waiting,
        hours=hours,
        interval=(low, high),
        guessed=expected.guessed,
        guesses=expected.guesses,
        bytes=sum(_bytes(cell, cell.key in required) for cell in todo),
        changed=changed_methods(cached, store),
    )


def with_trials(plan: Plan, store: Store, trials: Mapping[str, float], jobs: int) -> Plan:
    """`plan` with estimates that rest on `trials` (see `gkdbench.execute.planning.forecast.forecast`)."""
    expected = forecast(plan.todo, store, trials)
    hours, low, high = expected.hours(jobs)
    return replace(plan, hours=hours, interval=(low, high), guessed=expected.guessed, guesses=expected.guesses)


def _refuse_too_little_memory(suite: Suite, todo: Sequence[Cell]) -> None:
    """Refuse a limit of memory below what a cell holds at the least.

    Raises:
        UserError: names the largest, and how many cells fit.
    """
    limit = suite.memory_limit_bytes
    if limit is None or not todo:
        return
    needs = {cell: least_bytes(cell.group.identity.config, cell.group.data, cell.group.identity.split) for cell in todo}
    largest = max(todo, key=needs.__getitem__)
    if needs[largest] > limit:
        fit = sum(need <= limit for need in needs.values())
        possible = f"{fit} of {len(todo)} cells may fit: choose them with --only" if fit else "no cell fits"
        raise UserError(
            f"memory_limit_bytes: expected at least {needs[largest]}, for the graph and the weights of {largest}, "
            f"got {limit}; try ten times that, or leave the limit out ({possible})"
        )


def rerun_keys(chosen: Iterable[Cell], asked: Collection[str], only: Mapping[str, str] | None) -> frozenset[str]:
    """Keys of the cells that ``--rerun`` runs again: the chosen ones that the suite lists.

    A teacher that the suite does not list, but that a student requires, is run again only when `only` names a method
    or a key, and thereby the teacher itself.
    """
    named = bool({"method", "key"} & set(only or {}))
    return frozenset(cell.key for cell in chosen if named or cell.key in asked)


def _weights_gone(cells: Sequence[Cell], todo: Sequence[Cell], store: Store) -> list[Cell]:
    """Cells with an ok row whose bank entry is gone, though a cell of `todo` (or such a teacher) requires it."""
    by_key = {cell.key: cell for cell in cells}
    found: dict[str, Cell] = {}
    waiting = list(todo)
    while waiting:
        for teacher in waiting.pop().requires.values():
            row = store.row(teacher.address)
            gone = row is not None and row.status == "ok" and not has_weights(store, teacher, row)
            if gone and teacher.key not in found:
                found[teacher.key] = by_key[teacher.key]
                waiting.append(teacher)
    return list(found.values())


def bank_folder(store: Store, cell: Cell) -> Path:
    """Where a cell's trained model is kept for its students."""
    return store.place(Path(".bank", cell.key))


def has_weights(store: Store, cell: Cell, row: Row | None) -> bool:
    """Whether a cell's bank entry holds the weights that its row names."""
    from gkdbench.protocol.bank import read_bank_facts

    try:
        meta = read_bank_facts(bank_folder(store, cell))
    except (OSError, ValueError):
        return False
    return row is not None and bool(row.models) and meta["weights_sha256"] == row.models[0].weights_sha256


def _bytes(cell: Cell, kept: bool) -> int:
    """Row and side-car (a quarter of a byte per item and column after compression), a kept teacher's logits and hidden
    features (128 wide at a guess)."""
    data = cell.group.data
    published = 6000 + data.nodes * len(cell.group.columns) // 4
    return published + 4 * data.nodes * (data.classes + 128) * kept


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def verdict(hours: float, interval: tuple[float, float], took: float) -> str:
    """One line: how far off a plan was.

    Args:
        hours, interval: what it said. took: hours.
    """
    inside = interval[0] <= took <= interval[1]
    return (
        f"planned {_hours(hours)} ({_hours(interval[0])} to {_hours(interval[1])}), took {_hours(took)}: "
        f"{took / hours:.2f} times the plan, {'inside' if inside else 'outside'} its interval"
    )
