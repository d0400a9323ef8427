"""Checks that the parts of a task agree: of one's own arrays, and of files whose content nobody registered.

A split that tests on training items, or a metric that does not fit the labels, would give scores that look right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gkdbench.data.families import PARTS
from gkdbench.errors import UnknownName, UserError
from gkdbench.metrics.registry import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from gkdbench.data.build import NumpyArray
    from gkdbench.data.task import Task

FITTING = {"accuracy": "one class an item", "micro_f1": "several labels an item", "rocauc": "two classes, or 0 and 1"}
"""Metric of this package -> the labels that it takes."""


def check_task(task: Task) -> None:
    """Refuse a task whose sizes, splits, labels and metric do not fit together.

    Raises:
        UserError: names the part, what was expected and what was given.
    """
    rows, nodes = int(task.features.shape[0]), task.num_nodes
    if rows != nodes:
        raise UserError(f"features: expected {nodes} rows, one for each node, got {rows}")
    items = nodes if task.kind == "node" or task.graph_ptr is None else len(task.graph_ptr) - 1
    if task.num_items != items:
        raise UserError(f"labels: expected {items} rows, one for each {task.kind}, got {task.num_items}")
    check_metric(task.metric, task.num_classes, multi_label=task.multi_label)
    known = _known(task)
    for name, parts in _splits(task.official).items():
        check_split(f"split {name!r}", parts, known)


def check_contents(task: Task) -> None:
    """Refuse numbers that no reader and no ``from_arrays`` would let through: for a Task that others built themselves.

    Raises:
        UserError: names the part, what was expected and what was given.
    """
    import torch

    if task.kind not in ("node", "graph"):
        raise UserError(f"kind: expected 'node' or 'graph', got {task.kind!r}")
    stored = task.features
    parts = [stored] if isinstance(stored, torch.Tensor) else [stored.value] if hasattr(stored, "value") else []
    for part in parts:
        if part.dtype != torch.float32 or not bool(torch.isfinite(part).all()):
            raise UserError(f"features: expected finite float32 numbers, got {_bad(part)}; try Task.from_arrays")
    labels, most = task.labels, task.num_classes
    if task.multi_label:
        fits = labels.dtype == torch.float32 and labels.dim() == 2 and labels.size(1) == most
        good = fits and bool(((labels == 0) | (labels == 1) | labels.isnan()).all())
        wanted = f"[M, {most}] float32 of 0, 1 and NaN"
    else:
        fits = labels.dtype == torch.int64 and labels.dim() == 1
        good = fits and bool(((labels >= -1) & (labels < most)).all())
        wanted = f"[M] int64 in [-1, {most})"
    if not good:
        raise UserError(
            f"labels: expected {wanted}, got {list(labels.shape)} {labels.dtype}"
            f"{'' if not fits else ' with others'}; try Task.from_arrays"
        )
    if task.graph.num_dst != task.graph.num_src:
        raise UserError(f"graph: expected as many rows as columns, got {task.graph.num_dst} and {task.graph.num_src}")
    ptr = task.graph_ptr
    if task.kind == "graph" and ptr is None:
        raise UserError("graph_ptr: expected [G + 1], the first node of each graph and the end, got None")
    if ptr is not None:
        rises = ptr.numel() > 1 and int(ptr[0]) == 0 and bool((ptr.diff() > 0).all())
        if not rises or int(ptr[-1]) != task.num_nodes:
            raise UserError(f"graph_ptr: expected numbers that rise from 0 to {task.num_nodes}, got others")


def _bad(part: Tensor) -> str:
    import torch

    if part.dtype != torch.float32:
        return str(part.dtype)
    return f"{int((~torch.isfinite(part)).sum())} that are not finite"


def check_metric(metric: str, num_classes: int, *, multi_label: bool) -> None:
    """Refuse a metric that does not exist, or one of this package that does not fit the labels.

    Raises:
        UnknownName: no such metric. UserError: it does not fit.
    """
    if metric not in METRICS.names():
        raise UnknownName("metric", metric, METRICS.names())
    if multi_label:
        fits, got = metric != "accuracy", f"labels [M, {num_classes}]"
    else:
        fits, got = metric != "micro_f1" and (metric != "rocauc" or num_classes == 2), f"{num_classes} classes"
    if not fits:
        other = "micro_f1 or rocauc" if multi_label else "accuracy"
        raise UserError(f"metric {metric!r}: expected {FITTING[metric]}, got {got}; try {other}")


def check_split(name: str, parts: Mapping[str, NumpyArray], known: NumpyArray) -> None:
    """Refuse a split in which an item is in two parts, twice in one, outside the data or without a label.

    Args:
        parts: "train", "val" and "test" -> ids.
        known: [M] bool, items with a label.

    Raises:
        UserError: says which part, and how many items.
    """
    for part, ids in parts.items():
        if not len(ids):
            raise UserError(f"{name}, {part}: expected one or more items, got none")
        if ids.min() < 0 or ids.max() >= len(known):
            raise UserError(f"{name}, {part}: expected ids in [0, {len(known)}), got {ids.min()}..{ids.max()}")
        repeated = len(ids) - len(np.unique(ids))
        if repeated:
            raise UserError(f"{name}, {part}: expected each item once, got {repeated} twice; drop the repeats")
        unknown = int((~known[ids]).sum())
        if unknown:
            raise UserError(f"{name}, {part}: expected labelled items, got {unknown} without a label; leave them out")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if first in parts and second in parts:
            both = np.intersect1d(parts[first], parts[second])
            if len(both):
                raise UserError(
                    f"{name}: expected each item in one part only, got an overlap: {len(both)} items of {first} are in "
                    f"{second}, too (first: {both[0]})"
                )


def _known(task: Task) -> NumpyArray:
    labels = task.labels.numpy()
    known: NumpyArray = ~np.isnan(labels).all(axis=1) if task.multi_label else labels >= 0
    return known


def _splits(official: Mapping[str, NumpyArray]) -> dict[str, dict[str, NumpyArray]]:
    """``<family>/<index>`` -> part -> ids."""
    found: dict[str, dict[str, NumpyArray]] = {}
    for key, ids in official.items():
        name, _, part = key.rpartition("/")
        if part in PARTS:
            found.setdefault(name, {})[part] = ids
    return found
