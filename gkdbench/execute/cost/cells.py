"""The measurements that a suite asks for: one run of each configuration, and the short training that is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkdbench.data.datasets import dataset_info
from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell
from gkdbench.execute.grid import Absent, GroupMaker, expand
from gkdbench.execute.select import select
from gkdbench.execute.suite import Suite, load_suite
from gkdbench.measure.cost.timed_epochs import stage_lengths
from gkdbench.records.canonical import sha256_json
from gkdbench.records.measurement import Measurement, MeasurementIdentity, load_measurement, place_of
from gkdbench.records.store import Store
from gkdbench.training.registry import METHODS

EPOCHS = 12
"""Epochs of the timed training; it ends earlier when its seconds are spent."""
TEACHER_EPOCHS = 3
"""Of a teacher: what its student costs does not depend on how well it was trained."""


@dataclass(frozen=True, eq=False)
class MeasuredCell:
    """One measurement.

    Args:
        cell: the configuration, as an accuracy suite would train it.
        short: the same with few epochs, for it and its teachers.
        identity: what the measurement's key covers.
    """

    cell: Cell
    short: Cell
    identity: MeasurementIdentity

    @property
    def path(self) -> Path:
        """Of its record, relative to the folder of records."""
        return place_of(self.identity)

    def stored(self, out: Path) -> Measurement | None:
        """Its record below `out`; None: there is none."""
        path = out / self.path
        return load_measurement(path) if path.exists() else None

    def is_stored(self, out: Path) -> bool:
        """Whether there is a record below `out`; a damaged one is none, a run would take it again."""
        try:
            return self.stored(out) is not None
        except UserError:
            return False

    def __str__(self) -> str:
        return f"cost of {self.cell}"


def measured_cells(
    suite: Suite,
    store: Store,
    *,
    data: Path | None,
    device: str,
    threads: int,
    only: Mapping[str, str] | None = None,
) -> tuple[list[MeasuredCell], list[Absent]]:
    """The measurements of `suite`, and the data sets whose files are not there.

    Args:
        device: device class.
        only: see `gkdbench.execute.select`.

    Raises:
        UserError: anything wrong with the suite.
    """
    first = _with_rows_of_others(suite.model_copy(update={"seeds": suite.seeds[:1]}))
    found = expand(first, store, data=data, device=device, threads=threads, only=only)
    once: dict[str, Cell] = {}
    for cell in sorted(found.cells, key=lambda cell: cell.key not in found.asked):
        if cell.key in found.asked or suite.rows_of:  # what other suites' rows require is a row of them, too
            of = cell.group.identity
            once.setdefault(sha256_json([of.method, of.config, of.revisions, of.dataset]), cell)
    cells = select(list(once.values()), only) if only else list(once.values())
    maker = GroupMaker(_with_short_teachers(first), data, device, threads)
    return [_measured(cell, maker, device, threads) for cell in cells], found.absent


def _with_rows_of_others(suite: Suite) -> Suite:
    """`suite` with the core grids of the suites in its ``rows_of``: published, corrected rows on its own data sets.

    Its own grids come first: where a configuration is in several, it is measured on the split of the first.
    """
    own = {dataset for grid in suite.grids for dataset in grid.datasets}
    grids = list(suite.grids)
    for name in suite.rows_of:
        for grid in load_suite(name).grids:
            datasets = [dataset for dataset in grid.datasets if dataset in own]
            methods = [one for one in grid.methods if not one.search and one.overrides.get("variant") != "as_released"]
            if datasets and methods and grid.tier == "core":
                grids.append(grid.model_copy(update={"datasets": datasets, "methods": methods, "sweeps": {}}))
    return suite.model_copy(update={"grids": grids})


def _measured(cell: Cell, maker: GroupMaker, device: str, threads: int) -> MeasuredCell:
    of = cell.group.identity
    method = cell.group.method
    lengths = stage_lengths({name: getattr(method, name, None) for name in of.config}, EPOCHS)
    changed: Any = dataclasses.replace(method, **lengths)  # type: ignore[arg-type]
    short = maker.group(changed, of.dataset, of.split)
    identity = MeasurementIdentity(
        method=of.method,
        config=of.config,
        revisions=of.revisions,
        dataset=of.dataset,
        data_sha256=of.data_sha256,
        split=of.split,
        device=device,
        threads=threads,
        index=cell.index,
        seed=cell.seed,
    )
    return MeasuredCell(cell, Cell(short, cell.index, cell.seed, cell.tier), identity)


def _with_short_teachers(suite: Suite) -> Suite:
    names = [name for name, method in METHODS.usable().items() if "epochs" in method.__dataclass_fields__]
    short = {name: {"epochs": TEACHER_EPOCHS} for name in names}
    datasets = {dataset_info(dataset).name for grid in suite.grids for dataset in grid.datasets}
    return suite.model_copy(update={"requirement_overrides": dict.fromkeys(datasets, short)})
