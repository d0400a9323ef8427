"""Small tasks of odd kinds, made by hand: what every method either trains on or is refused for beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from gkdbench.data.splits import SplitTask, prepare
from gkdbench.data.task import Task

Kind = Literal["node", "graph"]
ITEMS, WIDTH, CLASSES = 24, 4, 3
PART = {"train": np.arange(12), "val": np.arange(12, 18), "test": np.arange(18, 24)}


def several(kind: Kind) -> Task:
    """Three labels an item, all known."""
    return odd_task(kind, labels=_several())


def holes(kind: Kind) -> Task:
    """Three labels an item, a third of them unknown, one of them of no training item but one; a training item with no
    label would be refused."""
    labels = _several()
    labels[np.random.default_rng(1).random(labels.shape) < 0.3] = np.nan
    labels[:11, 2] = np.nan
    labels[:, 0] = np.where(np.isnan(labels).all(axis=1), 1.0, labels[:, 0])
    labels[12:18, :2] = _several()[12:18, :2]
    labels[18:, :2] = _several()[18:, :2]
    return odd_task(kind, labels=labels)


def one_label(kind: Kind) -> Task:
    """One label an item, in the shape of several."""
    return odd_task(kind, labels=_several()[:, :1])


def one_class(kind: Kind) -> Task:
    """Every item has class 0, and there is no other."""
    return odd_task(kind, labels=np.zeros(ITEMS, dtype=np.int64))


def one_training_item(kind: Kind) -> Task:
    """One labelled item to train on."""
    return odd_task(kind, part=PART | {"train": np.arange(1)})


def absent_class(kind: Kind) -> Task:
    """Training items of one class of three."""
    return odd_task(kind, part=PART | {"train": np.arange(0, 12, 3)})


def zero_features(kind: Kind) -> Task:
    """Nodes without a single feature."""
    return odd_task(kind, width=0)


def constant_features(kind: Kind) -> Task:
    """Every feature is 0."""
    return odd_task(kind, features=np.zeros)


def no_edges(kind: Kind) -> Task:
    """Every node is isolated."""
    return odd_task(kind, edges=False)


ODD: dict[str, Callable[[Kind], Task]] = {
    "several labels": several,
    "labels with holes": holes,
    "one label": one_label,
    "one class": one_class,
    "one training item": one_training_item,
    "an absent class": absent_class,
    "zero features": zero_features,
    "constant features": constant_features,
    "no edges": no_edges,
}


def odd_problem(name: str, kind: Kind) -> SplitTask:
    """The task called `name` with its one own split."""
    return prepare(ODD[name](kind), "own" if kind == "node" else "own-graph")


def odd_task(
    kind: Kind,
    *,
    labels: Any = None,
    part: Any = None,
    width: int = WIDTH,
    features: Callable[..., Any] | None = None,
    edges: bool = True,
) -> Task:
    """24 nodes in a ring of rings of three; or 24 graphs that are rings of three nodes."""
    nodes = ITEMS if kind == "node" else 3 * ITEMS
    node = np.arange(nodes)
    ring = np.stack([node, node - node % 3 + (node + 1) % 3])
    if kind == "node":
        ring = np.concatenate([ring, np.stack([node, (node + 3) % nodes])], axis=1)
    both = np.concatenate([ring, ring[::-1]], axis=1) if edges else np.zeros((2, 0), dtype=np.int64)
    made = features or np.random.default_rng(0).standard_normal
    return Task.from_arrays(
        "odd",
        both,
        made((nodes, width)).astype(np.float32),
        np.arange(ITEMS) % CLASSES if labels is None else labels,
        kind=kind,
        graph_ptr=np.arange(0, nodes + 1, 3) if kind == "graph" else None,
        splits=[part or PART],
    )


def _several() -> Any:
    """[24, 3] of 0 and 1, both in every part."""
    item = np.arange(ITEMS)
    return np.stack([item % 2, item // 2 % 2, item // 3 % 2], axis=1).astype(np.float32)
