"""A cell: one run of one method on one split with one seed, and everything of its record that is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gkdbench.data.families import split_family
from gkdbench.records.canonical import canonical_json
from gkdbench.records.key import GroupIdentity, cell_key, member_seed
from gkdbench.records.schema import DataInfo, Record, Row, TeacherInfo
from gkdbench.records.store import CellAddress, GroupAddress

if TYPE_CHECKING:
    from gkdbench.training.method import Method


@dataclass(frozen=True, eq=False, repr=False)
class Group:
    """A configuration on one data set and split id.

    Args:
        method: resolved, every field decided.
        identity: what the key covers.
        columns: reported settings of the split family.
        teachers: role -> the group that trains it.
        threads: of the run; recorded, not part of the key.
    """

    method: Method
    identity: GroupIdentity
    data: DataInfo
    columns: tuple[str, ...]
    teachers: Mapping[str, Group]
    threads: int

    @cached_property
    def key(self) -> str:
        return self.identity.key

    @property
    def address(self) -> GroupAddress:
        of = self.identity
        return GroupAddress(of.key, of.method, of.dataset, of.split, of.setting)

    @property
    def label(self) -> str:
        """Method, and what distinguishes it: for progress lines."""
        return self.method.label if self.method.variant == "corrected" else f"{self.method.label} (as released)"

    def record(self, row: Row) -> Record:
        """The record of this group with one row."""
        of = self.identity
        return Record(
            key=of.key,
            method=of.method,
            label=self.method.label,
            variant=self.method.variant,
            tier="tuned" if of.tuning else "published",
            trials=of.tuning.get("trials", 0),
            tuning=of.tuning,
            revision=type(self.method).revision,
            revisions=of.revisions,
            config=of.config,
            control=self.method.control_kind,  # type: ignore[arg-type]  # checked where methods are registered
            dataset=of.dataset,
            split=of.split,
            setting=of.setting,  # type: ignore[arg-type]  # validated by the model
            columns=list(self.columns),
            data=self.data,
            teachers={role: group.teacher_info() for role, group in self.teachers.items()},
            device=of.device,
            threads=self.threads,
            audit_every=of.audit_every,
            selection=of.selection,
            audit_only=split_family(of.split).audit_only,
            sweeps=of.sweeps,
            rows=[row],
        )

    def teacher_info(self) -> TeacherInfo:
        """How a student's record names this group."""
        return TeacherInfo(
            key=self.key, method=self.identity.method, label=self.method.label, config=self.identity.config
        )


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """One run of a group. Its teachers are the same index and seed of the teachers' groups; the further models of a
    run (see `gkdbench.records.key.member_seed`) share its teachers."""

    group: Group
    index: int
    seed: int
    tier: str = "core"

    @cached_property
    def key(self) -> str:
        return cell_key(self.group.key, self.index, self.seed)

    @property
    def address(self) -> CellAddress:
        return CellAddress(self.group.address, self.index, self.seed)

    @property
    def split_task(self) -> tuple[str, str, int]:
        """(data set, split id, index): cells that share it share one view on disk."""
        return (self.group.identity.dataset, self.group.identity.split, self.index)

    @cached_property
    def requires(self) -> dict[str, Cell]:
        """Role -> the teacher's cell."""
        needs = self.group.method.requires()
        members = {role: (needs[role].member if role in needs else None) or 0 for role in self.group.teachers}
        return {
            role: Cell(group, self.index, member_seed(self.seed, members[role]), self.tier)
            for role, group in self.group.teachers.items()
        }

    def __str__(self) -> str:
        of = self.group.identity
        return f"{self.group.label} on {of.dataset}, {of.split} #{self.index}, seed {self.seed}"

    __repr__ = __str__

    def selector(self) -> str:
        """``--only`` value that names this cell and nothing else."""
        of = self.group.identity
        parts = [f"method={of.method}", f"dataset={of.dataset}", f"split={of.split}"]
        parts += [f"index={self.index}", f"seed={self.seed}", f"key={of.key[:12]}"]
        # The key alone is exact; names with a comma (powerlaw:n=1000,d=8) would be cut in two.
        return ",".join(part for part in parts if "," not in part)


def with_teachers(cells: Iterable[Cell]) -> list[Cell]:
    """`cells` and all that they require, each once, teachers before students."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        for teacher in cell.requires.values():
            add(teacher)
        found.setdefault(cell.key, cell)

    for cell in cells:
        add(cell)
    return list(found.values())


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as JSON has it (tuples become lists), so that stored and computed configurations compare equal."""
    found: dict[str, Any] = json.loads(canonical_json(config))
    return found
