"""Profiles of one cell, trained in this process for a few epochs, its teachers first; nothing of it is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.data.splits import prepare_named
from gkdbench.errors import UserError
from gkdbench.execute.api import device_class, pick_device
from gkdbench.execute.cell import Cell
from gkdbench.execute.cost.cells import TEACHER_EPOCHS
from gkdbench.execute.debug import as_worker, required_by_others
from gkdbench.execute.inline_suite import suite_of
from gkdbench.execute.plan import make_plan
from gkdbench.execute.processes.environment import worker_environment
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.session import monitor_of, run_session
from gkdbench.protocol.view import Context
from gkdbench.protocol.view_io import TrainingBundle, read_bundle, write_bundle
from gkdbench.records.store import Store
from gkdbench.training.registry import METHODS

if TYPE_CHECKING:
    from gkdbench.measure.machine_peaks import MachinePeaks
    from gkdbench.measure.profiles.profile import Profile
    from gkdbench.measure.profiles.recorder import Recorder

DATASETS = {"node": "digits-knn", "graph": "digits-grid"}
"""Built-in set that a method is profiled on by default, by the kind of its tasks."""
WARM_UP = 2


@dataclass(eq=False)
class ShortRuns:
    """Trains a cell and its teachers for a few epochs each, in `folder`, as a worker would be given them.

    The methods get the view without test labels, under the environment of a worker, in which raw data are out of reach.
    """

    folder: Path
    given: TrainingBundle
    device: str
    threads: int
    _banks: dict[str, BankEntry] = field(default_factory=dict, init=False)

    def context(self, cell: Cell) -> Context:
        """What the method of `cell` works with; its teachers are trained here."""
        scratch = self.folder / "scratch"
        scratch.mkdir()
        teachers = {role: self._teacher(teacher).read(self.given.view) for role, teacher in cell.requires.items()}
        import torch

        return Context(monitor_of(self.given, scratch), teachers, cell.seed, torch.device(self.device))

    def _teacher(self, cell: Cell) -> BankEntry:
        from gkdbench.measure.profiles.epochs import EndedSoon

        if cell.key not in self._banks:
            teachers = {role: self._teacher(teacher) for role, teacher in cell.requires.items()}
            folder = self.folder / f"teacher{len(self._banks)}"
            scratch = folder / "scratch"
            scratch.mkdir(parents=True)
            method = cell.group.method
            outcome = run_session(
                EndedSoon(method, TEACHER_EPOCHS),
                bundle=self.given.folder,
                scratch=scratch,
                seed=cell.seed,
                teachers=teachers,
                device=self.device,
                bank=folder / "bank",
            )
            if outcome.status != "ok":
                raise UserError(f"a teacher failed: {cell}: {outcome.reason}; try `gkdbench run` with --debug")
            self._banks[cell.key] = BankEntry(folder / "bank", method.name, cell.group.identity.config, cell.seed)
        return self._banks[cell.key]


def planned_cell(
    method: str,
    overrides: Mapping[str, Any],
    *,
    dataset: str | None = None,
    split: str | None = None,
    data: Path | None = None,
    device: str = "auto",
    threads: int = 1,
) -> Cell:
    """The first cell of one method: split index 0, seed 0.

    Args:
        overrides: hyper-parameters; everything else is as published.
        dataset: None: one of `DATASETS`; split: None: the data set's first.
        data: folder of raw files; None: ``$GKDBENCH_DATA``.

    Raises:
        UserError: an unknown name, key or value, a task of another kind, or a data set whose files are not there.
    """
    kinds = METHODS.get(method).kinds
    dataset = dataset or DATASETS["node" if "node" in kinds else "graph"]
    suite = suite_of(methods=[{"method": method, "overrides": overrides}], dataset=dataset, split=split, seeds=0)
    with tempfile.TemporaryDirectory(prefix="gkdbench-profile-") as nowhere:
        plan = make_plan(suite, Store(nowhere), data=data, device=device_class(pick_device(device)), threads=threads)
    if plan.absent:
        if plan.absent[0].why:
            raise UserError(plan.absent[0].why)
        name = plan.absent[0].files
        raise UserError(
            f"{name}: expected its raw files, got none; try `gkdbench data fetch {name}`, --data FOLDER, or a built-in "
            f"set such as {DATASETS['node']}"
        )
    required = required_by_others(plan.todo)
    return next(cell for cell in plan.todo if cell.key not in required)


@contextmanager
def short_runs(cell: Cell, *, data: Path | None, device: str, threads: int) -> Iterator[ShortRuns]:
    """`ShortRuns` in a temporary folder; within, this process has the environment and the threads of a worker."""
    import torch

    where, before = pick_device(device), torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="gkdbench-profile-") as name:
        folder = Path(name)
        write_bundle(prepare_named(*cell.split_task, data=data), folder / "view")
        torch.set_num_threads(threads)
        try:
            with as_worker(worker_environment(threads)):
                yield ShortRuns(folder, read_bundle(folder / "view", where), where, threads)
        finally:
            torch.set_num_threads(before)


def profile_training(
    cell: Cell, runs: ShortRuns, peaks: MachinePeaks, *, epochs: int
) -> list[tuple[str, Profile, Recorder]]:
    """(name, profile, recorder with the trace) of `epochs` epochs of the stage in which the deployed model is selected.

    Raises:
        UserError: training has too few epochs.
    """
    from gkdbench.measure.profiles.epochs import record_epochs
    from gkdbench.measure.profiles.recorder import Recorder
    from gkdbench.measure.profiles.regions import Regions, kernels_by_name

    regions, method = Regions(), cell.group.method
    context = runs.context(cell)
    recorder = Recorder(context.device, regions)
    with kernels_by_name(regions):
        had = record_epochs(method, runs.given.view, context, recorder, regions, warm_up=WARM_UP, epochs=epochs)
    if had is not None:
        needed = WARM_UP + epochs + 1
        raise UserError(
            f"--epochs {epochs}: expected a method that trains {needed} epochs in its deployed stage, got "
            f"{method.name!r}, which ended after {had}; try fewer, or epochs={needed} where it has that key"
        )
    return [("training", recorder.profile("one epoch of training", peaks, unit="epoch", units=epochs), recorder)]


def profile_inference(
    cell: Cell, runs: ShortRuns, peaks: MachinePeaks, *, epochs: int
) -> Iterator[tuple[str, Profile, Recorder]]:
    """(name, profile, recorder with the trace) of each way to ask the deployed predictor for answers, after `epochs`
    epochs of training."""
    from gkdbench.measure.cost.inference import Deployed
    from gkdbench.measure.profiles.epochs import EndedSoon
    from gkdbench.measure.profiles.inference import profiled, ways

    context = runs.context(cell)
    fitted = EndedSoon(cell.group.method, epochs).fit(runs.given.view, context)
    members = list(fitted.predictors.values())
    deployed = Deployed(members if fitted.ensemble else members[:1], multi_label=runs.given.view.multi_label)
    for way in ways(deployed, runs.given.view.inputs):
        profile, recorder = profiled(way, peaks, context.device)
        yield way.name, profile, recorder
