"""The view on disk: the parent writes it, the process of the method reads it. No file of it holds a test label.

Items have new numbers (`gkdbench.protocol.renumbering`). What may be read only after ``fit``, the graphs with unseen
nodes and the test graphs, is in a folder of its own, ``later``.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures
from torch import Tensor

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.data.splits import SPLIT_FAMILIES, SplitTask
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.monitor import ScoredSet
from gkdbench.protocol.renumbering import renumbered
from gkdbench.protocol.view import TrainView

LATER = "later"
"""Folder inside a bundle, read after ``fit``."""


@dataclass(frozen=True, eq=False)
class TrainingBundle:
    """What the process of a method finds in the folder of a bundle, as far as it may be read while ``fit`` runs.

    Args:
        val_graph: name of the graph that `val` is in.
        scored_sets: test items on graphs that training sees.
        has_later: whether there are further ones, on graphs that are read after ``fit``.
    """

    folder: Path
    view: TrainView
    metric: str
    val_graph: str
    val: NodeSet
    val_labels: Tensor
    scored_sets: list[ScoredSet]
    has_later: bool

    def graph(self, name: str) -> Inputs:
        """The Inputs called `name`, "observed" or `val_graph`, on the view's device."""
        if name == "observed":
            return self.view.inputs
        return _read_inputs(self.folder / "scenes" / name).to(self.view.device)


def write_bundle(split_task: SplitTask, folder: Path) -> EvaluationGraphs:
    """Write the view of `split_task` to `folder` (atomically: an existing folder is complete and kept).

    Test labels are dropped here; validation labels are written apart, for the Monitor alone.

    Returns:
        The graphs in the split's own numbers, with the places of the predictions that come back.
    """
    original = make_evaluation_graphs(split_task)
    new = renumbered(original, split_task)
    written = replace(original, place=new.place)
    if folder.exists():
        return written
    evaluation_graphs = new.graphs
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for part in (partial, partial / LATER):
        (part / "scenes").mkdir(parents=True)
    early = {"observed", evaluation_graphs.val_graph}
    for name, inputs in evaluation_graphs.graphs.items():
        _write_inputs((partial if name in early else partial / LATER) / "scenes" / name, inputs)
    labels = split_task.task.labels
    _save(partial / "train.position.npy", evaluation_graphs.train.position)
    _save(partial / "train.labels.npy", labels[original.train.ids][torch.from_numpy(new.place["train"])])
    _save(partial / "val.position.npy", evaluation_graphs.val.position)
    _save(partial / "val.labels.npy", labels[original.val.ids][torch.from_numpy(new.place["val"])])
    for scored_set in evaluation_graphs.scored_sets:
        part = partial if scored_set.live else partial / LATER
        _save(part / f"test.{scored_set.column}.position.npy", scored_set.items.position)
    meta = {
        "dataset": split_task.task.name,
        "kind": split_task.task.kind,
        "setting": "graph" if split_task.task.kind == "graph" else SPLIT_FAMILIES[split_task.split.id].setting,
        "metric": split_task.task.metric,
        "num_classes": split_task.task.num_classes,
        "multi_label": split_task.task.multi_label,
        "val_scene": evaluation_graphs.val_graph,
        "watches": [{"column": w.column, "scene": w.graph_name, "live": w.live} for w in evaluation_graphs.scored_sets],
    }
    (partial / "meta.json").write_text(json.dumps(meta))
    try:
        partial.rename(folder)
    except OSError:  # another process finished the same view first
        if not folder.exists():
            raise
        shutil.rmtree(partial, ignore_errors=True)
    return written


def read_bundle(folder: Path, device: str = "cpu") -> TrainingBundle:
    """The bundle in `folder`, memory-mapped copy-on-write; what models read is on `device`."""
    meta = json.loads((folder / "meta.json").read_text())
    observed = _read_inputs(folder / "scenes" / "observed")
    val_graph = observed if meta["val_scene"] == "observed" else _read_inputs(folder / "scenes" / meta["val_scene"])
    live = [scored_set for scored_set in meta["watches"] if scored_set["live"]]
    scored_sets = _read_scored_sets(folder, live, {"observed": observed.items})
    view = TrainView(
        dataset=meta["dataset"],
        kind=meta["kind"],
        setting=meta["setting"],
        inputs=observed,
        train=NodeSet(observed.items, _load(folder / "train.position.npy")),
        labels=_load(folder / "train.labels.npy"),
        num_classes=meta["num_classes"],
        multi_label=meta["multi_label"],
    )
    val = NodeSet(val_graph.items, _load(folder / "val.position.npy"))
    return TrainingBundle(
        folder=folder,
        view=view.to(device),
        metric=meta["metric"],
        val_graph=meta["val_scene"],
        val=val,
        val_labels=_load(folder / "val.labels.npy"),
        scored_sets=scored_sets,
        has_later=len(live) < len(meta["watches"]),
    )


@dataclass(frozen=True, eq=False)
class LaterGraphs:
    """The part of a bundle that is read after ``fit``.

    Args:
        scored_sets: all of the bundle, those that training saw among them, in the order of its columns.
    """

    folder: Path
    given: TrainingBundle
    scored_sets: list[ScoredSet]

    def graph(self, name: str) -> Inputs:
        """The Inputs called `name`, on the view's device."""
        if name in ("observed", self.given.val_graph):
            return self.given.graph(name)
        return _read_inputs(self.folder / "scenes" / name).to(self.given.view.device)


def read_later(given: TrainingBundle, folder: Path) -> LaterGraphs:
    """What is read after ``fit``.

    Args:
        folder: the bundle's `LATER`, or where its content was put.
    """
    watches = json.loads((given.folder / "meta.json").read_text())["watches"]
    unseen = [scored_set for scored_set in watches if not scored_set["live"]]
    known = {one.column: one for one in [*given.scored_sets, *_read_scored_sets(folder, unseen, {})]}
    return LaterGraphs(folder, given, [known[scored_set["column"]] for scored_set in watches])


def _read_scored_sets(folder: Path, watches: list[dict[str, Any]], items: dict[str, Space]) -> list[ScoredSet]:
    """Scored sets as ``meta.json`` lists them; `items` are the numberings that are there already, by graph."""
    found = []
    for one in watches:
        column, graph_name = one["column"], one["scene"]
        if graph_name not in items:
            items[graph_name] = _read_space(folder / "scenes" / graph_name, "items")
        position = _load(folder / f"test.{column}.position.npy")
        found.append(ScoredSet(column, graph_name, NodeSet(items[graph_name], position), one["live"]))
    return found


def _save(path: Path, tensor: Tensor) -> None:
    np.save(path, tensor.numpy(), allow_pickle=False)


def _load(path: Path) -> Tensor:
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(array) if array.size else torch.from_numpy(np.array(array))


def _write_inputs(folder: Path, inputs: Inputs) -> None:
    folder.mkdir()
    _save_graph(folder / "graph", inputs.graph)
    facts: dict[str, Any] = {"symmetric": inputs.graph.symmetric, "node_items": inputs.items is inputs.space}
    features = inputs.features
    if isinstance(features, MixedFeatures):
        raise TypeError("features: expected dense or sparse ones of a data set, got mixed ones, which methods make")
    if isinstance(features, SparseFeatures):
        _save_graph(folder / "features", features.graph)
        _save(folder / "features.value.npy", features.value)
    else:
        _save(folder / "features.dense.npy", features)
    facts["num_features"] = int(features.shape[1])
    for name, space in (("space", inputs.space), ("items", inputs.items)):
        _save(folder / f"{name}.ids.npy", space.ids)
        (folder / f"{name}.name").write_text(space.name)
    for name in ("segments", "edge_features", "parts"):
        tensor = getattr(inputs, name)
        if tensor is not None:
            _save(folder / f"{name}.npy", tensor)
    (folder / "facts.json").write_text(json.dumps(facts))


def _read_inputs(folder: Path) -> Inputs:
    facts = json.loads((folder / "facts.json").read_text())
    space = _read_space(folder, "space")
    items = space if facts["node_items"] else _read_space(folder, "items")
    graph = _load_graph(folder / "graph", len(space), facts["symmetric"])
    features: Features
    if (folder / "features.dense.npy").exists():
        features = _load(folder / "features.dense.npy")
    else:
        columns = _load_graph(folder / "features", facts["num_features"], None)
        features = SparseFeatures(columns, _load(folder / "features.value.npy"))
    extra = {
        name: _load(folder / f"{name}.npy") if (folder / f"{name}.npy").exists() else None
        for name in ("segments", "edge_features", "parts")
    }
    return Inputs(space, items, graph, features, extra["segments"], extra["edge_features"], extra["parts"])


def _read_space(folder: Path, name: str) -> Space:
    return Space((folder / f"{name}.name").read_text(), _load(folder / f"{name}.ids.npy"))


def _save_graph(stem: Path, graph: CSRGraph) -> None:
    _save(stem.with_name(stem.name + ".indptr.npy"), graph.indptr)
    _save(stem.with_name(stem.name + ".index.npy"), graph.index)


def _load_graph(stem: Path, num_src: int, symmetric: bool | None) -> CSRGraph:
    indptr, index = (_load(stem.with_name(f"{stem.name}.{part}.npy")) for part in ("indptr", "index"))
    return CSRGraph(indptr, index, num_src, symmetric)
