"""The label-stripped view on disk: the parent writes it, the worker reads it. No file of it holds a test label."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
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
from gkdbench.protocol.view import TrainView


@dataclass(frozen=True, eq=False)
class TrainingBundle:
    """What a worker finds in the folder of a bundle. Graphs other than "observed" are read when they are needed."""

    folder: Path
    view: TrainView
    metric: str
    val_graph: str
    val: NodeSet
    val_labels: Tensor
    scored_sets: list[ScoredSet]

    def graph(self, name: str) -> Inputs:
        """The Inputs called `name`, on the view's device."""
        if name == "observed":
            return self.view.inputs
        return _read_inputs(self.folder / "scenes" / name).to(self.view.device)


def write_bundle(split_task: SplitTask, folder: Path) -> EvaluationGraphs:
    """Write the view of `problem` to `folder` (atomically: an existing folder is complete and kept).

    Test labels are dropped here; validation labels are written apart, for the Monitor alone.
    """
    evaluation_graphs = make_evaluation_graphs(split_task)
    if folder.exists():
        return evaluation_graphs
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "scenes").mkdir(parents=True)
    for name, inputs in evaluation_graphs.graphs.items():
        _write_inputs(partial / "scenes" / name, inputs)
    labels = split_task.task.labels
    _save(partial / "train.position.npy", evaluation_graphs.train.position)
    _save(partial / "train.labels.npy", labels[evaluation_graphs.train.ids])
    _save(partial / "val.position.npy", evaluation_graphs.val.position)
    _save(partial / "val.labels.npy", labels[evaluation_graphs.val.ids])
    for scored_set in evaluation_graphs.scored_sets:
        _save(partial / f"test.{scored_set.column}.position.npy", scored_set.items.position)
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
    return evaluation_graphs


def read_bundle(folder: Path, device: str = "cpu") -> TrainingBundle:
    """The bundle in `folder`, memory-mapped copy-on-write; what models read is on `device`."""
    meta = json.loads((folder / "meta.json").read_text())
    observed = _read_inputs(folder / "scenes" / "observed")
    val_graph = observed if meta["val_scene"] == "observed" else _read_inputs(folder / "scenes" / meta["val_scene"])
    items: dict[str, Space] = {"observed": observed.items}
    scored_sets = []
    for scored_set in meta["watches"]:
        if scored_set["scene"] not in items:
            items[scored_set["scene"]] = _read_space(folder / "scenes" / scored_set["scene"], "items")
        position = _load(folder / f"test.{scored_set['column']}.position.npy")
        scored_sets.append(
            ScoredSet(
                scored_set["column"],
                scored_set["scene"],
                NodeSet(items[scored_set["scene"]], position),
                scored_set["live"],
            )
        )
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
    val_labels = _load(folder / "val.labels.npy")
    return TrainingBundle(folder, view.to(device), meta["metric"], meta["val_scene"], val, val_labels, scored_sets)


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
    for name in ("segments", "edge_features"):
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
        for name in ("segments", "edge_features")
    }
    return Inputs(space, items, graph, features, extra["segments"], extra["edge_features"])


def _read_space(folder: Path, name: str) -> Space:
    return Space((folder / f"{name}.name").read_text(), _load(folder / f"{name}.ids.npy"))


def _save_graph(stem: Path, graph: CSRGraph) -> None:
    _save(stem.with_name(stem.name + ".indptr.npy"), graph.indptr)
    _save(stem.with_name(stem.name + ".index.npy"), graph.index)


def _load_graph(stem: Path, num_src: int, symmetric: bool | None) -> CSRGraph:
    indptr, index = (_load(stem.with_name(f"{stem.name}.{part}.npy")) for part in ("indptr", "index"))
    return CSRGraph(indptr, index, num_src, symmetric)
