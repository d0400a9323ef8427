"""What transfer does to weights: weight 0 is the solo run, batches change no loss weight (protocol.md: traps 12, 20;
H3)."""

import dataclasses
from typing import Any

import pytest
import torch

from gkdbench.data.nodes import NodeTable
from gkdbench.nn.random import Randomness
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.predictor import State
from gkdbench.protocol.view import Teacher
from gkdbench.testing.method_case import identical, relative_gap
from gkdbench.training import distil as _distil
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.models import backbone_config, build
from gkdbench.training.resolve import resolve
from gkdbench.training.solo import TrainingSettings

MLP = {"hidden": 16, "layers": 2, "dropout": 0.5}


@pytest.mark.parametrize("setting", ["tran", "ind", "multilabel"])
@pytest.mark.parametrize("batch_size", [None, 32])
def test_glnn_with_all_weight_on_labels_is_the_mlp(bench: Any, setting: str, batch_size: int | None) -> None:
    options = {"model": MLP, "batch_size": batch_size}
    student = bench.run("glnn", setting, label_weight=1.0, **options)
    alone = bench.run("mlp", setting, **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])
    assert not identical(bench.final("glnn", setting, label_weight=0.5, **options), alone.final["model"])


@pytest.mark.parametrize(
    ("setting", "backbone"), [("tran", "gcn"), ("ind", "gcn"), ("graph", "gin"), ("multilabel", "gcn")]
)
def test_kd_without_the_teacher_is_the_solo_run(bench: Any, setting: str, backbone: str) -> None:
    model = resolve("kd", {"backbone": backbone, "model": {"hidden": 16, "layers": 2}}).config()["model"]
    options = {"backbone": backbone, "model": model, "lr": 0.01, "weight_decay": 5e-4, "batch_size": None}
    student = bench.run("kd", setting, alpha=0.0, teacher=backbone, **options)
    alone = bench.run("teacher", setting, fanouts=(), **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])


@pytest.mark.parametrize("name", ["mlp_params", "mlp_macs"])
def test_matched_controls_without_the_teacher_are_the_mlp_of_that_width(bench: Any, name: str) -> None:
    run = bench.run(name, label_weight=1.0, model=MLP, batch_size=None)
    width = int(run.outcome.extra["hidden"])
    alone = bench.final("mlp", model={**MLP, "hidden": width}, batch_size=None)
    assert identical(run.final["model"], alone)


@pytest.mark.parametrize(("name", "setting"), [("label_smoothing", "smoothing"), ("confidence_penalty", "beta")])
def test_regularised_controls_without_their_term_are_the_mlp(bench: Any, name: str, setting: str) -> None:
    options = {"model": MLP, "batch_size": None}
    alone = bench.final("mlp", **options)
    gap = relative_gap(bench.final(name, **{setting: 0.0}, **options), alone)
    assert gap < 1e-6
    assert not identical(bench.final(name, **{setting: 0.1}, **options), alone)


def gradient(bench: Any, monkeypatch: pytest.MonkeyPatch, batch_size: int | None, weight: float) -> State:
    """Mean over the epoch's steps of the gradient at the initial weights."""
    given = bench.given("tran")
    view = given.view
    config = backbone_config("mlp", {**MLP, "dropout": 0.0})
    teacher = torch.randn(len(view.items), view.num_classes, generator=torch.Generator().manual_seed(5))
    sums: dict[str, torch.Tensor] = {}
    steps = [0]

    def hold_still(model: Any, optimiser: Any, loss: Any) -> float:
        model.randomness.step += 1
        value = loss()
        for (name, parameter), grad in zip(
            model.named_parameters(), torch.autograd.grad(value, list(model.parameters())), strict=True
        ):
            assert parameter.shape == grad.shape
            sums[name] = sums.get(name, torch.zeros_like(grad)) + grad
        steps[0] += 1
        return float(value.detach())

    class Quiet:
        monitor = type("Monitor", (), {"report": staticmethod(lambda *_, **__: type("Verdict", (), {"stop": False}))})
        seed = 0

    monkeypatch.setattr(_distil, "descend", hold_still)
    transfer = Transfer(teacher=NodeTable(view.items, teacher), soft=kl_to_teacher, label_weight=weight)
    recipe = TrainingSettings(lr=0.1, weight_decay=0.0, epochs=1, batch_size=batch_size)
    train_student(view, Quiet(), config, recipe, transfer)  # type: ignore[arg-type]
    count = len(view.items)
    assert steps[0] == (1 if batch_size is None else -(-count // batch_size))
    return {name: total / steps[0] for name, total in sums.items()}


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_batches_do_not_change_the_weights_of_the_terms(
    bench: Any, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """210 nodes in batches of 70, 60 labels in batches of 60 or 70: the mean gradient is the full-batch gradient."""
    full = gradient(bench, monkeypatch, None, weight)
    batched = gradient(bench, monkeypatch, 70, weight)
    assert relative_gap(full, batched) < 1e-4


def test_the_full_batch_gradient_is_that_of_the_formula(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    view = bench.given("tran").view
    model = build(backbone_config("mlp", {**MLP, "dropout": 0.0}), view, seed=0)
    teacher = torch.randn(len(view.items), view.num_classes, generator=torch.Generator().manual_seed(5))
    logits = model(view.inputs.features)
    loss = 0.3 * supervised(logits[view.train.position], view.labels) + 0.7 * kl_to_teacher(logits, teacher)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    wanted = {name: grad for (name, _), grad in zip(model.named_parameters(), grads, strict=True)}
    assert relative_gap(gradient(bench, monkeypatch, None, 0.3), wanted) < 1e-5


def test_a_term_of_weight_zero_takes_no_step(bench: Any, adam_steps: Any) -> None:
    bench.run("glnn", label_weight=0.0, model=MLP, batch_size=None)  # its teacher is trained here, or was before
    bench.run("glnn", label_weight=0.0, model=MLP, batch_size=None, variant="as_released")
    before = adam_steps()
    bench.run("glnn", label_weight=0.0, model=MLP, batch_size=None)
    assert adam_steps() - before == 4
    bench.run("glnn", label_weight=0.0, model=MLP, batch_size=None, variant="as_released")
    assert adam_steps() - before == 4 + 8


def test_where_the_student_imitates_is_part_of_the_configuration() -> None:
    assert resolve("kd", {"nodes": "train"}).config() != resolve("kd", {"nodes": "all"}).config()


def test_kd_on_labelled_nodes_does_not_see_the_others_targets(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in the teacher's logits off the training set changes only the student that imitates everywhere."""
    options = {"model": {"hidden": 8}, "teacher": "gcn"}
    before = {nodes: bench.final("kd", nodes=nodes, **options) for nodes in ("train", "all")}
    read = BankEntry.read

    def noisy(self: BankEntry, view: Any) -> Teacher:
        teacher = read(self, view)
        value = teacher.logits.value.clone()
        rest = torch.ones(len(value), dtype=torch.bool)
        rest[view.train.position] = False
        value[rest] += torch.empty_like(value[rest]).normal_(generator=Randomness(1).initial("noise"))
        return dataclasses.replace(teacher, logits=NodeTable(view.items, value))

    monkeypatch.setattr(BankEntry, "read", noisy)
    assert identical(bench.final("kd", nodes="train", **options), before["train"])
    assert not identical(bench.final("kd", nodes="all", **options), before["all"])
