"""BGNN-R: stages through the bank, a temperature per item, weights of what teachers get wrong (protocol.md: H1, H3)."""

from typing import Any

import pytest
import torch
from support.peer_formulas import CLASSES, ITEMS, cross_entropy, joint_of, logits_of
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable, Space
from gkdbench.methods.mutual._logit_weighting import LogitWeighting
from gkdbench.methods.mutual.bgnn import item_weights
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}
SPACE = Space("items", torch.arange(ITEMS))


def on_items(joint: JointForward) -> JointForward:
    joint.inputs.everything = NodeSet(SPACE, torch.arange(ITEMS))
    return joint


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("temperature", "ce_on"), [("adaptive", "raw"), ("adaptive", "weighted"), ("one", "raw")])
def test_loss_and_gradients_are_those_of_the_formula(temperature: str, ce_on: str, several: bool) -> None:
    z, t = logits_of(2)
    t = t.detach()
    joint = on_items(joint_of([z], several=several))
    method: Any = resolve("bgnn", {"temperature": temperature, "ce_on": ce_on, "lam": 0.7})
    unit = LogitWeighting("temp", CLASSES, multi_label=several, randomness=Randomness(0)).double()
    weight = torch.rand(ITEMS, *joint.labels.shape[1:], generator=torch.Generator().manual_seed(1)).double()
    got, _ = method.losses(
        joint,
        multi_label=several,
        teacher=NodeTable(SPACE, t),
        weight=NodeTable(SPACE, weight),
        unit=unit if temperature == "adaptive" else None,
    )
    tau = unit.temperature(t) if temperature == "adaptive" else torch.ones(ITEMS, 1).double()
    p, q = ((t / tau).sigmoid(), (z / tau).sigmoid()) if several else ((t / tau).softmax(1), (z / tau).softmax(1))
    soft = -(p * q.log() + (1 - p) * (1 - q).log()).mean(1) if several else -(p * q.log()).sum(1)
    hard = z / tau if ce_on == "weighted" else z
    answers, w = hard[joint.rows], weight[joint.rows]
    if several:
        known = ~joint.labels.isnan()
        y, p_y = joint.labels[known], answers[known].sigmoid()
        labels = (-w[known] * (y * p_y.log() + (1 - y) * (1 - p_y).log())).mean()
    else:
        labels = (-w * answers.softmax(1).log()[torch.arange(len(w)), joint.labels]).mean()
    wanted = labels + 0.7 * soft.mean()
    moved: list[Tensor] = [z, *(unit.parameters() if temperature == "adaptive" else ())]
    torch.testing.assert_close(got[0], wanted)
    for a, b in zip(torch.autograd.grad(got[0], moved), torch.autograd.grad(wanted, moved), strict=True):
        torch.testing.assert_close(a, b)


def test_without_boosting_labels_weigh_the_same() -> None:
    z, t = logits_of(2)
    joint = on_items(joint_of([z]))
    method: Any = resolve("bgnn", {"boosting": False, "lam": 0.0})
    table = NodeTable(SPACE, t.detach())
    loss, _ = method.losses(joint, multi_label=False, teacher=table, weight=table, unit=None)
    torch.testing.assert_close(loss[0], cross_entropy(z, joint))


def test_item_weights_are_those_of_samme_r() -> None:
    """``exp(-(C - 1) / C y . log p)`` per stage, multiplied, of mean 1."""
    stages, labels = [z.detach()[:7] for z in logits_of(2)], torch.tensor([0, 1, 2, 0, 1, 2, 0])
    wanted = torch.ones(7).double()
    for logits in stages:
        coded = torch.full((7, CLASSES), -1 / (CLASSES - 1)).double()
        coded[torch.arange(7), labels] = 1.0
        wanted *= (-(CLASSES - 1) / CLASSES * (coded * logits.softmax(1).log()).sum(1)).exp()
    got = item_weights(stages, labels, multi_label=False)
    torch.testing.assert_close(got.double(), wanted / wanted.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(item_weights([], labels, multi_label=False), torch.ones(7))


def test_item_weights_of_several_labels_are_those_of_two_classes() -> None:
    logits = logits_of(1)[0].detach()[:4]
    labels = torch.tensor([[1.0, 0.0, float("nan")]] * 4).double()
    got = item_weights([logits], labels, multi_label=True)
    p = logits[:, :2].sigmoid()
    own = torch.stack([p[:, 0], 1 - p[:, 1]], dim=1)
    wanted = (-0.5 * (own.log() - (1 - own).log())).exp()
    torch.testing.assert_close(got[:, :2].double(), wanted / wanted.mean(), rtol=1e-5, atol=1e-6)
    assert not got[:, 2].any()


def test_mistakes_weigh_more() -> None:
    sure = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
    right, wrong = item_weights([sure], torch.tensor([0, 1]), multi_label=False).tolist()
    assert wrong > 10 * right


@pytest.mark.parametrize("setting", ["tran", "graph"])
def test_without_teacher_and_boosting_the_student_is_the_solo_peer(bench: Any, setting: str) -> None:
    options: dict[str, Any] = {"models": SMALL, "lam": 0.0, "patience": None}
    student = bench.run("bgnn", setting, boosting=False, **options)
    alone = bench.run("dml", setting, **options)
    assert identical(student.final["model"], alone.final["peer1"])
    assert not identical(bench.run("bgnn", setting, **options).final["model"], alone.final["peer1"])


def test_each_stage_is_a_cell_of_its_own(bench: Any) -> None:
    three = resolve("bgnn", {"peers": ["gcn", "sage", "gcn"], "models": SMALL, "lam": 0.5, "epochs": 7})
    needs = three.requires()
    assert [(role, need.method) for role, need in needs.items()] == [("stage0", "teacher"), ("teacher", "bgnn")]
    second = resolve("bgnn", needs["teacher"].overrides)
    assert (second.peers, second.lam, second.epochs) == (("gcn", "sage"), 0.5, 7)  # type: ignore[attr-defined]
    first, same = (
        resolve("teacher", method.requires()[role].overrides)
        for method, role in ((three, "stage0"), (second, "teacher"))
    )
    assert first == same and (first.backbone, first.model["hidden"]) == ("gcn", 8)  # type: ignore[attr-defined]
    run = bench.run("bgnn", peers=["gcn", "sage", "gcn"], models=SMALL)
    assert list(run.final) == ["model"] and set(run.outcome.teachers) == {"stage0", "teacher"}


def test_the_temperature_of_every_epoch_is_stored(bench: Any) -> None:
    run = bench.run("bgnn", models=SMALL)
    trace = run.scored.arrays["terms/temperature.model"]
    assert len(trace) == 4 and all(1 < value < 4 for value in trace)
    assert run.outcome.extra["largest_item_weight"] >= 1
    assert "terms/temperature.model" not in bench.run("bgnn", models=SMALL, temperature="one").scored.arrays
