"""A split of a prepared task: ``prepare_named("cora", "cpf-lcc-20-30-ind20", index=3)``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gkdbench.data.datasets import dataset_info, load_task
from gkdbench.data.families import PARTS, SPLIT_FAMILIES, SplitFamily, split_family
from gkdbench.data.rawfiles import refuse_in_worker
from gkdbench.errors import UserError

if TYPE_CHECKING:
    from gkdbench.data.build import NumpyArray
    from gkdbench.data.splitmakers import Parts
    from gkdbench.data.task import Task

__all__ = [
    "SPLIT_FAMILIES",
    "Split",
    "SplitFamily",
    "SplitTask",
    "prepare",
    "prepare_named",
    "split_family",
    "supported_splits",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Split:
    """Item ids (nodes or graphs) of one split, in the numbering of the prepared task; [M] int64 arrays.

    Args:
        train, val, test: disjoint (but for audit-only families, where validation is the test part).
        unseen: the part of `test` that training must not see, edges included; empty when transductive.
        original_ids: [N] prepared item -> item of the raw set.
    """

    id: str
    index: int
    train: NumpyArray
    val: NumpyArray
    test: NumpyArray
    unseen: NumpyArray
    original_ids: NumpyArray

    @cached_property
    def hash(self) -> str:
        """sha256 of the id, the index and all ids."""
        digest = hashlib.sha256(f"{self.id}#{self.index}".encode())
        for part in (self.train, self.val, self.test, self.unseen, self.original_ids):
            digest.update(f"[{len(part)}]".encode())
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SplitTask:
    """A prepared task and one split of it.

    Args:
        task: after preprocessing.
        preprocessing: what was done, part of a cell's key.
        hash: sha256 of the raw content, the preprocessing and the split.
    """

    task: Task
    split: Split
    preprocessing: Mapping[str, str | bool]
    hash: str


def supported_splits(dataset: str) -> tuple[str, ...]:
    """Split ids of a data set by name, in the catalogue's order. Imports no torch for sets of this package."""
    info = dataset_info(dataset)
    return info.splits if info.splits else _task_splits(load_task(dataset))


def first_split(task: Task) -> str:
    """The split to take where none is named: the one that came with the task, else 80 / 10 / 10 percent."""
    fitting = _task_splits(task)
    brought = [split for split in fitting if SPLIT_FAMILIES[split].official]
    drawn = [split for split in fitting if (SPLIT_FAMILIES[split].base or split) == "random-80-10-10"]
    return (brought + drawn + list(fitting))[0]


def prepare_named(dataset: str, split_id: str, index: int = 0, *, data: Path | str | None = None) -> SplitTask:
    """Load the right file for (dataset, split family), prepare it and split it.

    ``cora`` and ``citeseer`` under a CPF family come from CPF's npz files; their task keeps the requested name.

    Raises:
        UserError: a pair that is not supported (the message lists what is), an index out of range.
    """
    info = dataset_info(dataset)
    split_family(split_id)
    if info.splits and split_id not in info.splits:
        raise UserError(f"{info.name} has no split {split_id!r}: expected one of {', '.join(info.splits)}")
    source = info.views.get(split_id)
    task = load_task(source or dataset, data=data)
    if source:
        task = task.with_(
            name=info.name,
            note=f"CPF's npz file ({source}), another file than Planetoid's",
        )
    elif info.name == "pubmed" and split_id.startswith("cpf-"):
        task = task.with_(
            note="built from Planetoid's PubMed: node order, hence the random split, differs from the papers'"
        )
    return prepare(task, split_id, index, offered=info.splits)


def count_official(dataset: str, family: SplitFamily, *, data: Path | str | None = None) -> int:
    """How many splits of `family` came with a data set."""
    return _count_official(load_task(dataset, data=data), family.base or family.id)


def _count_official(task: Task, base: str) -> int:
    return sum(key.startswith(f"{base}/") for key in task.official) // len(PARTS)


_RANDOM_NODES = "node-80-10-10"
"""A random split of nodes that needs no number of items a class."""


def prepare(task: Task, split_id: str, index: int = 0, *, offered: Sequence[str] = ()) -> SplitTask:
    """Preprocess `task` as the family defines it, and make split `index` of it.

    Args:
        offered: splits to advise where this one cannot be made; by default all that fit the task.

    Raises:
        UserError: the family does not fit the task, or has no such index.
    """
    refuse_in_worker(f"a split of {task.name!r}")
    from gkdbench.data.preprocess import preprocess

    family = split_family(split_id)
    if split_id not in _task_splits(task):
        raise UserError(f"{task.name} has no split {split_id!r}: expected one of {', '.join(_task_splits(task))}")
    if index < 0 or (family.indices is not None and index >= family.indices):
        wanted = "0 or more" if family.indices is None else f"0 to {family.indices - 1}"
        raise UserError(f"split {split_id!r} of {task.name}: expected an index of {wanted}, got {index}")
    prepared, ids = preprocess(task, family.preprocessing)
    try:
        parts = _parts(prepared, family, index)
    except UserError as error:
        other = _RANDOM_NODES if family.classes and _RANDOM_NODES in (offered or _task_splits(task)) else ""
        raise UserError(f"{error}{f', or try the split {other}' if other else ''}") from None
    split = Split(
        id=split_id,
        index=index,
        train=parts.train,
        val=parts.val,
        test=parts.test,
        unseen=parts.test[: parts.num_unseen],
        original_ids=ids,
    )
    chain = json.dumps([task.content_hash, sorted(family.preprocessing.items()), split.hash])
    return SplitTask(
        prepared,
        split,
        dict(family.preprocessing),
        hashlib.sha256(chain.encode()).hexdigest(),
    )


def _parts(task: Task, family: SplitFamily, index: int) -> Parts:
    from gkdbench.data import splitmakers as make

    base = family.base or family.id
    if family.official:
        parts = _official_parts(task, base, index, wrap=family.random)
    else:
        parts = make.MAKERS[base](task.labels.numpy(), index)
    if family.audit_only:
        parts = parts._replace(val=parts.test)
    if family.setting != "ind":
        return parts
    return make.unseen_fifth(parts, index) if family.random else make.all_unseen(parts)


def _official_parts(task: Task, base: str, index: int, *, wrap: bool) -> Parts:
    """Parts number `index` of those that came with the task; `wrap` starts again at 0 after the last."""
    from gkdbench.data.splitmakers import Parts

    count = _count_official(task, base)
    if index >= count and not wrap:
        raise UserError(
            f"{task.name} came with {count} {base!r} splits: expected an index of 0 to {count - 1}, got {index}"
        )
    return Parts.of(task.official[f"{base}/{index % count}/{part}"] for part in PARTS)


def _task_splits(task: Task) -> tuple[str, ...]:
    """Families that fit a task as it is: official ones by the ids it carries, random ones by kind and labels."""
    here = {key.split("/")[0] for key in task.official}
    several_graphs = task.kind == "node" and task.graph_ptr is not None
    return tuple(
        family.id
        for family in SPLIT_FAMILIES.values()
        if task.kind in family.kinds
        and ((family.base or family.id) in here if family.official else not several_graphs)
        and not (task.multi_label and family.classes)
    )
