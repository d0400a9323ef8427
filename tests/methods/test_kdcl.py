"""KDCL: the shared target of each kind, and who learns from it (docs/protocol.md: H1, H3)."""

from functools import partial
from typing import Any

import pytest
import torch
from support.peer_formulas import (
    CLASSES,
    ITEMS,
    assert_equal_with_gradients,
    assert_one_loss_moves_one_peer,
    cross_entropy,
    divergence,
    joint_of,
    logits_of,
)
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable, Space
from gkdbench.methods.mutual.kdcl import error_weights, simplex_weights
from gkdbench.testing.method_case import identical
from gkdbench.training.losses import supervised
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}
SPACE = Space("items", torch.arange(ITEMS))


def kdcl(**overrides: Any) -> Any:
    return resolve("kdcl", overrides)


def target_of(kind: str, logits: list[Tensor], joint: JointForward) -> Tensor:
    """[N, C] by the words of the class; rows without a label are not used for minlogit."""
    if kind == "naive":
        return min(logits, key=lambda z: float(cross_entropy(z, joint).detach()))
    if kind == "minlogit":
        y = joint.targets.clamp(min=0)
        return torch.stack([z - z[torch.arange(ITEMS), y][:, None] for z in logits]).amin(0)
    if kind == "mean":
        return torch.stack(logits).mean(0)
    shares = simplex_weights(torch.stack(logits)[:, joint.rows].detach(), joint.labels, multi_label=False)
    return torch.stack([w * z for w, z in zip(shares, logits, strict=True)]).sum(0)


@pytest.mark.parametrize("kind", ["naive", "linear", "minlogit", "mean"])
def test_loss_and_gradients_are_those_of_the_formula(kind: str) -> None:
    logits = logits_of(3)
    joint = joint_of(logits)
    got, _ = kdcl(peers=["gcn"] * 3, target=kind, lam=0.7, ce_weight=0.4).losses(joint, multi_label=False)
    target, rows = target_of(kind, logits, joint), joint.rows if kind == "minlogit" else torch.arange(ITEMS)
    wanted = []
    for z in logits:
        soft = 9 * divergence((target / 3).softmax(1), (z / 3).softmax(1))[rows].mean()
        taught = kind != "naive" or z is not target
        wanted.append(0.4 * cross_entropy(z, joint) + 0.7 * taught * soft)
    assert_equal_with_gradients(got, torch.stack(wanted), logits)


@pytest.mark.parametrize("kind", ["naive", "linear", "minlogit", "mean"])
def test_one_loss_moves_one_peer(kind: str) -> None:
    assert_one_loss_moves_one_peer(partial(kdcl(target=kind).losses, multi_label=False), 2)


@pytest.mark.parametrize("several", [False, True])
def test_simplex_weights_are_the_best_of_a_fine_grid(several: bool) -> None:
    joint = joint_of(logits_of(2), several=several)
    for seed in range(4):
        z = torch.stack(logits_of(2, seed=seed))[:, joint.rows].detach()

        def loss(w: float, z: Tensor = z) -> float:
            return supervised(w * z[0] + (1 - w) * z[1], joint.labels, multi_label=several).item()

        first, second = simplex_weights(z, joint.labels, multi_label=several).tolist()
        assert first + second == pytest.approx(1.0) and min(first, second) >= 0
        assert loss(first) <= min(loss(w / 200) for w in range(201)) + 1e-4


def test_a_worse_copy_gets_no_weight() -> None:
    labels = torch.arange(ITEMS) % CLASSES
    good = 3 * torch.nn.functional.one_hot(labels, CLASSES).double()
    shares = simplex_weights(torch.stack([good, -good, 0 * good]), labels, multi_label=False)
    assert shares[0] > 0.99


def test_error_weights_are_those_of_the_inverse_covariance() -> None:
    joint = joint_of(logits_of(3))
    z = torch.stack(logits_of(3))[:, joint.rows].detach()
    errors = (z.softmax(2) - torch.nn.functional.one_hot(joint.labels, CLASSES)).flatten(1)
    inverse = torch.linalg.inv(errors @ errors.T / errors.size(1))
    wanted = inverse.sum(1) / inverse.sum()
    torch.testing.assert_close(error_weights(z, joint.labels, multi_label=False), wanted, rtol=1e-3, atol=1e-3)
    twins = error_weights(z[[0, 0]], joint.labels, multi_label=False)
    torch.testing.assert_close(twins, torch.full((2,), 0.5, dtype=torch.float64))


def test_what_general_sets_aside_is_not_trained_on() -> None:
    logits = logits_of(2)
    joint = joint_of(logits)
    joint.inputs.everything = NodeSet(SPACE, torch.arange(ITEMS))
    mask = torch.zeros(ITEMS, dtype=torch.bool)
    mask[joint.rows[:3]] = True
    method = kdcl(target="general", lam=0.7)
    got = method.losses(joint, multi_label=False, held=NodeTable(SPACE, mask))[0]
    kept = JointForward(1, joint.inputs, joint.traces, joint.rows[3:], joint.labels[3:])
    z = torch.stack(logits).detach()
    shares = error_weights(z[:, joint.rows[:3]], joint.labels[:3], multi_label=False)
    target = shares[0] * z[0] + shares[1] * z[1]
    soft = [9 * divergence((target / 3).softmax(1), (y / 3).softmax(1)).mean() for y in logits]
    wanted = torch.stack([cross_entropy(y, kept) + 0.7 * s for y, s in zip(logits, soft, strict=True)])
    assert_equal_with_gradients(got, wanted, logits)


def test_general_runs_and_minlogit_wants_one_label(bench: Any) -> None:
    general = bench.run("kdcl", models=SMALL, target="general").final
    assert not identical(
        general["peer0"], bench.run("kdcl", models=SMALL, target="general", holdout=0.5).final["peer0"]
    )
    run = bench.workshop.run(kdcl(models=SMALL, target="minlogit", epochs=2), bench.problem("multilabel"))
    assert run.outcome.status == "error" and "expected one label per item" in run.outcome.reason


def test_with_weight_zero_every_peer_is_alone(bench: Any) -> None:
    alone = bench.run("dml", models=SMALL, lam=0.0).final
    for kind in ("linear", "general"):
        run = bench.run("kdcl", models=SMALL, lam=0.0, target=kind).final
        assert all(identical(run[name], state) for name, state in alone.items())


def test_the_simplification_is_a_recipe() -> None:
    method = kdcl(recipe="shaoeric_kdcl")
    assert (method.target, method.ce_weight, method.lam, method.tau) == ("mean", 0.5, 0.5, 4.0)
