"""The teacher bank: what a student gets is what was selected, and damage is noticed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.session import RunOutcome, run_session
from gkdbench.protocol.view_io import read_bundle
from gkdbench.training.models import load_teacher_model
from gkdbench.training.resolve import resolve

Get = Callable[[str], Any]


def trained(case: Any, folder: Path, scratch: Path, **overrides: Any) -> tuple[BankEntry, RunOutcome]:
    method = resolve("teacher", {"backbone": "gcn", "epochs": 4, **overrides})
    outcome = run_session(method, bundle=case.folder, scratch=scratch, seed=3, teachers={}, bank=folder)
    assert outcome.status == "ok", outcome.traceback
    return BankEntry(folder, "teacher", method.config(), 3), outcome


@pytest.fixture
def banked(ready: Get, tmp_path: Path) -> tuple[Any, BankEntry, RunOutcome]:
    (tmp_path / "scratch").mkdir()
    case = ready("ind")
    return (case, *trained(case, tmp_path / "bank", tmp_path / "scratch"))


def test_a_teacher_survives_the_bank_and_its_module_can_be_made_again(banked: Any) -> None:
    case, entry, outcome = banked
    view = read_bundle(case.folder).view
    teacher = entry.read(view)
    assert teacher.weights_sha256 == outcome.models[0]["weights_sha256"]
    model = load_teacher_model(teacher, view)
    assert not model.training
    with torch.no_grad():
        trace = model.trace(view.inputs.features, view.inputs.graph)
    assert torch.equal(trace.logits, teacher.logits[view.inputs.everything])
    assert torch.equal(trace.hidden[-1], teacher.hidden[view.inputs.everything])
    assert not teacher.logits.value.requires_grad


@pytest.mark.parametrize(
    ("backbone", "setting"), [("gin", "graph"), ("mlp", "graph"), ("sgc", "tran"), ("gat", "tran")]
)
def test_every_kind_of_teacher_can_be_made_again(ready: Get, tmp_path: Path, backbone: str, setting: str) -> None:
    (tmp_path / "scratch").mkdir()
    case = ready(setting)
    entry, _ = trained(case, tmp_path / "bank", tmp_path / "scratch", backbone=backbone, fanouts=())
    view = read_bundle(case.folder).view
    teacher = entry.read(view)
    with torch.no_grad():
        logits = load_teacher_model(teacher, view)(view.inputs.features, view.inputs.graph, view.inputs.segments)
    assert torch.equal(logits, teacher.logits[view.inputs.everything])
    assert (teacher.hidden is None) == (backbone == "sgc")


def test_teacher_logits_of_unseen_nodes_do_not_exist(banked: Any) -> None:
    case, entry, _ = banked
    teacher = entry.read(read_bundle(case.folder).view)
    assert len(teacher.logits.space) == case.problem.task.num_nodes - len(case.problem.split.unseen)
    full = case.evaluation_graphs.graphs["full"].items
    with pytest.raises(UserError, match="positions of"):
        teacher.logits[NodeSet(full, torch.tensor([0]))]


def test_a_teacher_of_another_graph_is_refused(banked: Any, ready: Get) -> None:
    _, entry, _ = banked
    with pytest.raises(
        UserError, match=r"'.*builtin-random/0.*', which the student sees, got one trained on '.*ind20.*'"
    ):
        entry.read(read_bundle(ready("tran").folder).view)


@pytest.mark.parametrize("name", ["state.npz", "logits.npy", "hidden.npy"])
def test_a_damaged_teacher_is_refused(banked: Any, name: str) -> None:
    case, entry, _ = banked
    path = entry.folder / name
    if name.endswith("npz"):
        with np.load(path) as arrays:
            changed = {key: arrays[key].copy() for key in arrays.files}
        next(iter(changed.values())).flat[0] += 1e-3
        np.savez(path, **changed)
    else:
        array = np.load(path)
        array.flat[0] += 1e-3
        np.save(path, array)
    with pytest.raises(
        UserError,
        match="expected weights of its hash, got others; delete the folder and give",
    ):
        entry.read(read_bundle(case.folder).view)


def test_training_again_replaces_the_entry(banked: Any, tmp_path: Path) -> None:
    case, entry, _ = banked
    (tmp_path / "again").mkdir()
    _, outcome = trained(case, entry.folder, tmp_path / "again", epochs=2)
    assert entry.read(read_bundle(case.folder).view).weights_sha256 == outcome.models[0]["weights_sha256"]
    assert [path.name for path in entry.folder.parent.iterdir() if path.name.startswith(".")] == []
