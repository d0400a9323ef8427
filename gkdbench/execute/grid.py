"""From a suite to groups and cells: methods resolved, data looked at, keys computed, requirements added."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gkdbench.data.datasets import available, dataset_info
from gkdbench.data.families import SplitFamily, split_family
from gkdbench.data.splits import SplitTask, count_official, prepare_named, supported_splits
from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell, Group, plain, with_teachers
from gkdbench.execute.suite import Grid, MethodEntry, Suite, Tier
from gkdbench.execute.tuning import best_trial, trial_settings, tuned
from gkdbench.nn.backbones import BACKBONES
from gkdbench.records.key import TRIAL, TUNING_SEEDS, GroupIdentity
from gkdbench.records.schema import DataInfo
from gkdbench.records.store import Store
from gkdbench.training.method import Method, Requirement
from gkdbench.training.resolve import deep_merge, resolve

FOLD_SEEDS = 3
"""Training seeds per fold where the splits are a fixed list (docs/protocol.md, section 5)."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Cells that cannot run because their data set's files are not there, or cannot be read or split.

    Args:
        why: what was wrong with the data set or the split; "": its files are not there.
        files: the data set whose files the split reads: cora on a CPF split reads those of cora-cpf.
    """

    dataset: str
    split: str
    cells: int
    why: str = ""
    files: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.dataset} on {self.split}: {self.cells} cells left out: {self.why}"
        fetch = f"`gkdbench data fetch {self.files or self.dataset}`"
        return f"{self.dataset} on {self.split}: {self.cells} cells skipped: data absent ({fetch})"


@dataclass
class Expansion:
    """All cells of a suite, every teacher before its students, no cell twice."""

    cells: list[Cell] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """Keys of the cells of the suite's entries; the others are only required by these."""
    absent: list[Absent] = field(default_factory=list)
    waiting: list[frozenset[str]] = field(default_factory=list)
    """Of each tuned group whose settings are not known yet, the keys of its trials."""


def expand(
    suite: Suite,
    store: Store,
    *,
    data: Path | None,
    device: str,
    threads: int,
    only: Mapping[str, str] | None = None,
) -> Expansion:
    """The cells of `suite` in the order in which they run: core grids first, then by data set, split and index.

    Args:
        store: where the trials of tuned entries are looked up.
        data: folder of raw files; None: ``$GKDBENCH_DATA``.
        device: device class, part of the key.
        only: see `gkdbench.execute.select`; data sets and splits that it leaves out are not read.

    Raises:
        UserError: an unknown method, data set, split, setting or hyper-parameter, or a pair that does not fit.
    """
    maker = GroupMaker(suite, data, device, threads)
    builder = _Builder(maker, store, data)
    grids = sorted(suite.grids, key=lambda grid: grid.tier == "full")
    places = [(grid, dataset, split) for grid in grids for dataset in grid.datasets for split in grid.splits]
    # Every name and value first: a typo is refused before data are read, and also where they are absent.
    for grid, dataset, split in places:
        check_pair(dataset, split)
        for entry in _entries(grid, dataset, split):
            maker.check(entry, dataset, split)
    for grid, dataset, split in _named(places, only or {}):
        builder.add_place(grid, dataset, split, suite.seeds)
    refused = [place.why for place in builder.found.absent if place.why]
    if refused and not builder.found.cells:
        raise UserError(refused[0])
    return builder.found


Place = tuple[Grid, str, str]
"""(grid, data set, split id)."""


def _named(places: list[Place], only: Mapping[str, str]) -> list[Place]:
    """The places whose data set and split `only` names; all of them where it names none that exists."""
    kept = [
        (grid, dataset, split)
        for grid, dataset, split in places
        if ("dataset" not in only or {dataset, dataset_info(dataset).name} & set(only["dataset"].split("|")))
        and ("split" not in only or split in only["split"].split("|"))
    ]
    return kept or places


class _Builder:
    """Gathers cells, each once, after its teachers."""

    def __init__(self, maker: GroupMaker, store: Store, data: Path | None) -> None:
        self.found = Expansion()
        self._maker, self._store, self._data = maker, store, data
        self._seen: set[str] = set()

    def add_place(self, grid: Grid, dataset: str, split: str, seeds: tuple[int, ...]) -> None:
        """The cells of `grid` on one data set and split, run by run, so that early results compare all methods."""
        family = check_pair(dataset, split)
        entries = _entries(grid, dataset, split)
        files = dataset_of(dataset, split)
        there = available(files, data=self._data)
        if there and family.own:
            family = replace(family, indices=count_official(dataset, family, data=self._data))
        runs = index_seed_pairs(family, seeds)
        if not there:
            missing = Absent(
                dataset_info(dataset).name, split, len(entries) * len(runs), files=dataset_info(files).name
            )
            self.found.absent.append(missing)
            return
        try:
            self._maker.look(dataset, split)
        except UserError as error:  # of this data set alone: the others go on
            why = " ".join(str(error).splitlines())
            self.found.absent.append(Absent(dataset_info(dataset).name, split, len(entries) * len(runs), why))
            return
        groups = [self._group(grid, entry, dataset, split, family) for entry in entries]
        for index, seed in runs:
            for group in groups:
                if group is not None:
                    self._ask(Cell(group, index, seed, grid.tier))

    def _group(self, grid: Grid, entry: MethodEntry, dataset: str, split: str, family: SplitFamily) -> Group | None:
        """The entry's group; of a tuned one, whose trials are added, the group of the best trial, once it is known."""
        if not entry.search:
            (method,) = self._maker.resolved(entry, dataset, split)
            return self._maker.group(method, dataset, split, sweeps=grid.sweeps)
        runs = index_seed_pairs(family, TUNING_SEEDS)
        trials = self._maker.trials(entry, dataset, split, runs, grid.tier)
        for cell in itertools.chain.from_iterable(trials):
            self._ask(cell)
        winner = best_trial(trials, self._store)
        if winner is None:
            self.found.waiting.append(frozenset(cell.key for cells in trials for cell in cells))
            return None
        how = tuned(entry.search, entry.trials, TUNING_SEEDS)
        return self._maker.group(winner.method, dataset, split, how, grid.sweeps)

    def _ask(self, cell: Cell) -> None:
        """Add a cell of an entry of the suite, after its teachers."""
        self.found.asked.add(cell.key)
        for one in with_teachers([cell]):
            if one.key not in self._seen:
                self._seen.add(one.key)
                self.found.cells.append(one)


def dataset_of(dataset: str, split: str) -> str:
    """The set whose files a pair reads (``cora`` on a CPF split reads CPF's own file)."""
    return dataset_info(dataset).views.get(split, dataset)


def check_pair(dataset: str, split: str) -> SplitFamily:
    """The split family, after checking that the data set has it."""
    family = split_family(split)
    info = dataset_info(dataset)
    if info.splits and split not in info.splits:
        raise UserError(f"{info.name} has no split {split!r}: expected one of {', '.join(supported_splits(dataset))}")
    return family


def index_seed_pairs(family: SplitFamily, seeds: tuple[int, ...]) -> list[tuple[int, int]]:
    """(split index, training seed) of every run: random families pair split i with seed i; a fixed split takes all
    seeds; a fixed list of splits takes the first three seeds on each."""
    if family.indices is None:
        return [(seed, seed) for seed in seeds]
    if family.indices == 1:
        return [(0, seed) for seed in seeds]
    return [(index, seed) for index in range(family.indices) for seed in seeds[:FOLD_SEEDS]]


def _entries(grid: Grid, dataset: str, split: str) -> list[MethodEntry]:
    """The entries of `grid` that run on `dataset` and `split`."""
    return [
        entry
        for entry in grid.methods
        if (entry.datasets is None or dataset in entry.datasets) and (entry.splits is None or split in entry.splits)
    ]


def _resolved(entry: MethodEntry, dataset: str, split: str, more: Mapping[str, Any] | None = None) -> Method:
    name = dataset_info(dataset).name
    overrides = deep_merge(entry.overrides | entry.per_dataset.get(dataset, {}), more or {})
    return resolve(entry.method, overrides, dataset=name, split=split)


def _check_fits(method: Method, kind: str, several_labels: bool, dataset: str) -> None:
    """Refuse a method for nodes on a data set of graphs, and the reverse, and one for a class an item where an item has
    several labels; `kind` is empty where it is not known yet."""
    if kind and kind not in method.kinds:
        raise UserError(
            f"method {method.name!r}: expected {' or '.join(method.kinds)} tasks, got {dataset}, a {kind} task"
        )
    why = method.why_one_label() if several_labels else ""
    if why:
        raise UserError(
            f"method {method.name!r}: expected a task of one class an item, got {dataset}, whose items have several "
            f"labels: {why}; leave it out here"
        )


class GroupMaker:
    """Makes groups; looks at each (data set, split) once, at each configuration once."""

    def __init__(self, suite: Suite, data: Path | None, device: str, threads: int) -> None:
        self._suite, self._data, self._device, self._threads = suite, data, device, threads
        self._facts: dict[tuple[str, str], tuple[DataInfo, str, bool]] = {}
        self._groups: dict[str, Group] = {}
        self._resolved: dict[tuple[int, str, str], list[Method]] = {}
        self._teachers: dict[str, Method] = {}

    def resolved(self, entry: MethodEntry, dataset: str, split: str) -> list[Method]:
        """The method of an entry, or of each trial of its search; resolved once."""
        at = (id(entry), dataset, split)
        if at not in self._resolved:
            trials = trial_settings(entry.search, entry.trials) if entry.search else [{}]
            self._resolved[at] = [_resolved(entry, dataset, split, settings) for settings in trials]
        return self._resolved[at]

    def check(self, entry: MethodEntry, dataset: str, split: str) -> None:
        """Refuse a method, a teacher, a key or a value that does not exist; no data are read.

        Raises:
            UserError: names it, with the nearest that exist.
        """
        info = dataset_info(dataset)
        for method in self.resolved(entry, dataset, split):
            _check_fits(method, info.kind, info.multi_label, dataset)
            for need in method.requires().values():
                self._required(need, info.name, split)

    def trials(
        self, entry: MethodEntry, dataset: str, split: str, runs: list[tuple[int, int]], tier: Tier
    ) -> list[list[Cell]]:
        """The cells of every trial of a tuned entry."""
        groups = [self.group(method, dataset, split, TRIAL) for method in self.resolved(entry, dataset, split)]
        return [[Cell(group, index, seed, tier) for index, seed in runs] for group in groups]

    def group(
        self,
        method: Method,
        dataset: str,
        split: str,
        tuning: Mapping[str, Any] | None = None,
        sweeps: Mapping[Any, list[float]] | None = None,
    ) -> Group:
        """The group of one configuration; its teachers are those of every other suite, and are not swept."""
        family = split_family(split)
        data, kind, several_labels = self.look(dataset, split)
        _check_fits(method, kind, several_labels, dataset)
        teachers = {
            role: self.group(self._required(need, data.name, split), dataset, split)
            for role, need in method.requires().items()
        }
        for need, member in zip(method.requires().values(), list(teachers.values()), strict=True):
            teachers |= member.teachers if need.member is not None else {}
        identity = GroupIdentity(
            method=method.name,
            config=plain(method.config()),
            revisions={method.name: type(method).revision}
            | {f"backbone {name}": BACKBONES.get(name).revision for name in method.backbones()},
            dataset=data.name,
            data_sha256=data.sha256,
            preprocessing=data.preprocessing,
            split=split,
            setting="graph" if kind == "graph" else family.setting,
            teachers={role: group.key for role, group in teachers.items()},
            device=self._device,
            audit_every=self._suite.audit_every,
            tuning=dict(tuning or {}),
            sweeps=dict(sweeps or {}),
            selection=self._suite.selection,
        )
        group = Group(method, identity, data, columns_of(family, kind), teachers, self._threads)
        return self._groups.setdefault(group.key, group)

    def _required(self, need: Requirement, dataset: str, split: str) -> Method:
        """The method that trains `need`, resolved once for all students that share it."""
        at = repr((need, dataset, split))
        if at not in self._teachers:
            budget = self._suite.requirement_overrides.get(dataset, {}).get(need.method, {})
            overrides = dict(need.overrides) | budget
            self._teachers[at] = resolve(need.method, overrides, dataset=dataset, split=split, recipe=need.recipe)
        return self._teachers[at]

    def look(self, dataset: str, split: str) -> tuple[DataInfo, str, bool]:
        """Facts and kind of a data set as the split prepares it, and whether items have several labels.

        Raises:
            UserError: it cannot be read, or not be split so.
        """
        if (dataset, split) not in self._facts:
            split_task = prepare_named(dataset, split, 0, data=self._data)
            task = split_task.task
            self._facts[dataset, split] = (data_info(split_task), task.kind, task.multi_label)
        return self._facts[dataset, split]


def columns_of(family: SplitFamily, kind: str) -> tuple[str, ...]:
    """Reported settings of one training."""
    return ("graph",) if kind == "graph" else family.columns


def data_info(split_task: SplitTask) -> DataInfo:
    """The fields of a record about its data."""
    task = split_task.task
    return DataInfo(
        name=task.name,
        sha256=task.content_hash,
        preprocessing=dict(split_task.preprocessing),
        nodes=task.num_nodes,
        edges=task.graph.num_edges,
        features=task.num_features,
        classes=task.num_classes,
        graphs=1 if task.graph_ptr is None else len(task.graph_ptr) - 1,
        metric=task.metric,
        note=task.note,
    )
