"""Graph tasks with several labels, holes among them, and edge features: what the molecule sets ask of every method."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gkdbench.data.splits import SplitTask, prepare
from gkdbench.protocol.view_io import read_bundle
from gkdbench.testing.method_case import identical
from gkdbench.testing.problems import small_graphs
from gkdbench.testing.runs import TracedRun, Workshop
from gkdbench.training.losses import supervised
from gkdbench.training.models import backbone_config, build
from gkdbench.training.resolve import resolve

KINDS = 2


def molecules() -> SplitTask:
    """Small graphs with three tasks, a quarter of the labels unknown, and two kinds of edges."""
    task = small_graphs()
    rng = np.random.default_rng(3)
    labels = (torch.arange(task.num_items)[:, None] % 3 == torch.arange(3)).float()
    labels[torch.from_numpy(rng.random(labels.shape) < 0.25)] = float("nan")
    kinds = (task.graph.index.long() + task.graph.row.long()) % KINDS
    several = task.with_(
        name="small-molecules",
        labels=labels,
        num_classes=3,
        multi_label=True,
        metric="rocauc",
        edge_features=torch.nn.functional.one_hot(kinds, KINDS).float(),
    )
    return prepare(several, "random-80-10-10")


@pytest.fixture(scope="module")
def problem() -> SplitTask:
    return molecules()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("graph-tasks"))


def run(workshop: Workshop, problem: SplitTask, name: str, **overrides: Any) -> TracedRun:
    done = workshop.run(resolve(name, {"epochs": 3, "batch_size": 16, **overrides}), problem)
    assert done.outcome.status == "ok", done.outcome.traceback
    return done


PAIR: dict[str, Any] = {
    "peers": ["gin", "gcn"],
    "models": {"gin": {"hidden": 8, "layers": 2}, "gcn": {"hidden": 8, "layers": 2, "readout": "mean"}},
}
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("teacher", {"backbone": "gin", "model": {"hidden": 8, "layers": 2}}),
    ("teacher", {"backbone": "gcn", "model": {"hidden": 8, "layers": 2, "readout": "mean", "self_loops": True}}),
    ("kd", {"backbone": "gin", "teacher": "gin", "model": {"hidden": 8, "layers": 2}}),
    ("glnn_graph", {"model": {"hidden": 8}}),
    ("mugsi", {"model": {"hidden": 8}}),
    *((name, PAIR) for name in ("dml", "gml", "kdcl", "lower_ce", "bgnn")),
    ("one", {"backbone": "gin", "model": {"hidden": 8, "layers": 2}}),
    *((name, {"peers": ["gin"] * 3, "models": {"gin": {"hidden": 8, "layers": 2}}}) for name in ("okddip", "oad")),
]


@pytest.mark.parametrize(("name", "overrides"), METHODS)
def test_methods_learn_several_tasks_with_unknown_labels(
    workshop: Workshop, problem: SplitTask, name: str, overrides: dict[str, Any]
) -> None:
    done = run(workshop, problem, name, **overrides)
    assert all(0 <= model.scores["graph"].value <= 1 for model in done.scored.models)
    assert np.isfinite(done.scored.arrays["terms/loss"]).all()
    for state in done.final.values():
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.parametrize("backbone", ["gin", "gcn"])
def test_a_graph_of_a_batch_gets_the_logits_it_gets_alone(
    workshop: Workshop, problem: SplitTask, backbone: str, tmp_path: Path
) -> None:
    """Bonds included: batches are one block-diagonal graph, whatever the order and the company."""
    view = read_bundle(workshop.view(problem)[0]).view
    settings = {"layers": 2, "hidden": 8} | ({"readout": "sum", "self_loops": True} if backbone == "gcn" else {})
    model = build(backbone_config(backbone, settings), view, seed=0).eval()
    assert model.edge_width == KINDS
    together = model(*view.inputs.arguments(model))
    chosen = torch.tensor([7, 0, 31])
    batch = view.inputs.take(chosen)
    torch.testing.assert_close(model(*batch.arguments(model)), together[chosen], rtol=1e-4, atol=1e-6)
    alone = view.inputs.take(chosen[:1])
    torch.testing.assert_close(model(*alone.arguments(model)), together[chosen[:1]], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(model(view.inputs.features, view.inputs.graph, view.inputs.segments), together)


@pytest.mark.parametrize("backbone", ["gin", "gcn"])
def test_edge_features_cost_and_are_kept_by_the_bank(workshop: Workshop, problem: SplitTask, backbone: str) -> None:
    plain = prepare(problem.task.with_(edge_features=None), "random-80-10-10")
    options = {"backbone": backbone, "model": {"hidden": 8, "layers": 2}}
    with_bonds, without = (run(workshop, p, "teacher", **options) for p in (problem, plain))
    assert with_bonds.outcome.models[0]["macs"] > without.outcome.models[0]["macs"]
    assert any("edges" in name for name in with_bonds.final["model"])
    assert not any("edges" in name for name in without.final["model"])


def test_kd_without_the_teacher_is_the_solo_run_on_molecules(workshop: Workshop, problem: SplitTask) -> None:
    options = {"backbone": "gin", "model": {"hidden": 8, "layers": 2}, "lr": 0.01, "weight_decay": 0.0}
    student = run(workshop, problem, "kd", alpha=0.0, teacher="gin", **options)
    assert identical(student.final["model"], run(workshop, problem, "teacher", **options).final["model"])


def test_unknown_labels_pull_nothing() -> None:
    """A known entry's gradient is that of its own column; a batch without any has loss and gradient 0."""
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1.0, float("nan"), 0.0]], dtype=torch.float64).repeat(6, 1)
    (gradient,) = torch.autograd.grad(supervised(logits, labels, multi_label=True), logits)
    wanted = (logits.sigmoid() - labels).nan_to_num(0.0) / 12
    torch.testing.assert_close(gradient, wanted.detach(), rtol=1e-12, atol=1e-15)
    empty = supervised(logits, torch.full_like(labels, float("nan")), multi_label=True)
    assert empty.item() == 0.0 and not torch.autograd.grad(empty, logits)[0].any()
