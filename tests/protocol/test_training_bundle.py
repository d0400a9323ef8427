"""The view on disk: complete, exact, and without a test label (docs/design.md, decision 1)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels.graph import SparseFeatures

from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.renumbering import renumbered
from gkdbench.protocol.view_io import LATER, read_bundle, read_later, write_bundle
from gkdbench.testing.problems import relabelled

Get = Callable[[str], Any]
SETTINGS = ["tran", "ind", "graph", "multilabel"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal(first: Inputs, second: Inputs) -> bool:
    tensors = [
        [inputs.space.ids, inputs.items.ids, inputs.graph.indptr, inputs.graph.index, inputs.features]
        for inputs in (first, second)
    ]
    names = [(inputs.space.name, inputs.items.name, inputs.graph.symmetric) for inputs in (first, second)]
    return names[0] == names[1] and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_byte_of_the_view_depends_on_a_test_label(ready: Get, setting: str, tmp_path: Path) -> None:
    case = ready(setting)
    changed = relabelled(case.problem, case.problem.split.test)
    assert not torch.equal(changed.task.labels, case.problem.task.labels)
    write_bundle(changed, tmp_path / "view")
    assert contents(tmp_path / "view") == contents(case.folder)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_labels_on_disk_are_those_of_train_and_val(ready: Get, setting: str, tmp_path: Path) -> None:
    """Every label is changed: the files that differ are the label files, and they hold what they should."""
    case = ready(setting)
    labels, split = case.problem.task.labels, case.problem.split
    write_bundle(relabelled(case.problem, np.arange(len(labels))), tmp_path / "view")
    old, new = contents(case.folder), contents(tmp_path / "view")
    assert {name for name in old if old[name] != new[name]} == {"train.labels.npy", "val.labels.npy"}
    place = case.evaluation_graphs.place
    for part, ids in (("train", split.train), ("val", split.val)):
        assert np.array_equal(np.load(case.folder / f"{part}.labels.npy"), labels[ids[place[part]]].numpy())


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_read_is_what_was_staged(ready: Get, setting: str) -> None:
    case = ready(setting)
    given, task = read_bundle(case.folder), case.problem.task
    later = read_later(given, case.folder / LATER)
    for name, inputs in case.handed.graphs.items():
        assert equal(later.graph(name), inputs), name
    assert given.view.train.ids.tolist() == case.handed.train.ids.tolist()
    original = case.evaluation_graphs.train.ids[torch.from_numpy(case.evaluation_graphs.place["train"])]
    assert torch.equal(given.view.labels, task.labels[original])
    assert given.val.ids.tolist() == case.handed.val.ids.tolist()
    assert given.val_graph == case.handed.val_graph
    wanted = [(w.column, w.graph_name, w.live, w.items.ids.tolist()) for w in case.handed.scored_sets]
    for found, sets in ((later.scored_sets, wanted), (given.scored_sets, [one for one in wanted if one[2]])):
        assert [(w.column, w.graph_name, w.live, w.items.ids.tolist()) for w in found] == sets
    assert given.has_later == (setting in ("ind", "graph"))
    assert (given.view.num_classes, given.view.multi_label, given.metric) == (
        task.num_classes,
        task.multi_label,
        task.metric,
    )
    assert given.view.setting == {"tran": "tran", "ind": "ind", "graph": "graph", "multilabel": "tran"}[setting]


def test_sparse_and_edge_features_survive(ready: Get, tmp_path: Path) -> None:
    problem = ready("ind").problem
    ends = torch.stack([problem.task.graph.index, problem.task.graph.row], dim=1).float()
    sparse = SparseFeatures.from_dense(problem.task.features)
    changed = replace(problem, task=problem.task.with_(features=sparse, edge_features=ends))
    evaluation_graphs = renumbered(write_bundle(changed, tmp_path / "v"), changed).graphs
    observed = read_bundle(tmp_path / "v").view.inputs
    assert isinstance(observed.features, SparseFeatures)
    wanted = evaluation_graphs.graphs["observed"]
    assert torch.equal(observed.features.dense(), wanted.features.dense())
    assert torch.equal(observed.edge_features, wanted.edge_features)


def test_the_training_view_of_an_inductive_run_holds_no_unseen_node(ready: Get) -> None:
    case = ready("ind")
    given = read_bundle(case.folder)
    unseen = next(w for w in case.handed.scored_sets if w.column == "ind").items.ids.tolist()
    assert len(unseen) == len(case.problem.split.unseen)
    assert not set(given.view.inputs.space.ids.tolist()) & set(unseen)
    assert [w.column for w in given.scored_sets] == ["tran"]
    with pytest.raises(OSError, match="full"):
        given.graph("full")


def test_writing_into_the_view_leaves_the_files_alone(ready: Get) -> None:
    folder = ready("tran").folder
    before = contents(folder)
    view = read_bundle(folder).view
    view.labels.fill_(0)
    view.inputs.features.zero_()
    assert contents(folder) == before


def test_a_finished_view_is_kept_and_a_partial_one_leaves_no_trace(
    ready: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, folder = ready("tran").problem, tmp_path / "view"
    write_bundle(problem, folder)
    stamp = (folder / "meta.json").stat().st_mtime_ns
    write_bundle(problem, folder)
    assert (folder / "meta.json").stat().st_mtime_ns == stamp

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(problem, tmp_path / "other")
    assert not (tmp_path / "other").exists()
