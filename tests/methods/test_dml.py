"""DML: the mean over the others' KL, and the release's sum (docs/protocol.md: H1, H2, H3, traps 12, 13)."""

from functools import partial
from typing import Any

import pytest
import torch
from support.peer_formulas import (
    assert_equal_with_gradients,
    assert_one_loss_moves_one_peer,
    bernoulli_divergence,
    cross_entropy,
    divergence,
    joint_of,
    logits_of,
)

from gkdbench.testing.method_case import identical
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}


def dml(peers: int = 2, **overrides: Any) -> Any:
    return resolve("dml", {"peers": ["gcn"] * peers, **overrides})


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("peers", "nodes"), [(2, "all"), (3, "train"), (4, "all")])
def test_loss_and_gradients_are_those_of_the_formula(peers: int, nodes: str, several: bool, variant: str) -> None:
    """The release's 1e-8 is below the tolerance: its value alone tells the sum from the mean."""
    logits = logits_of(peers)
    joint = joint_of(logits, several=several)
    got, kl = dml(peers, lam=0.5, nodes=nodes, variant=variant).losses(joint, multi_label=several)
    chosen = joint.rows if nodes == "train" else torch.arange(len(logits[0]))
    share = 0.5 if variant == "as_released" else 0.5 / (peers - 1)
    wanted = []
    for j, z in enumerate(logits):
        loss = cross_entropy(z, joint)
        for i, teacher in enumerate(logits):
            if i != j:
                apart = (
                    bernoulli_divergence(teacher.sigmoid(), z.sigmoid())
                    if several
                    else divergence(teacher.softmax(1), z.softmax(1))
                )
                loss = loss + share * apart[chosen].mean()
                assert kl[f"kl{i}{j}"].item() == pytest.approx(apart[chosen].mean().item(), abs=1e-5)
        wanted.append(loss)
    assert_equal_with_gradients(got, torch.stack(wanted), logits, tolerance=1e-5 if variant == "as_released" else 1e-10)


def test_the_release_adds_its_epsilon() -> None:
    """Where a peer is certain of another class, the quotient's denominator is 1e-8 and not 0."""
    sure, other = torch.tensor([[40.0, 0.0]] * 20).double(), torch.tensor([[0.0, 40.0]] * 20).double()
    joint = joint_of([sure, other])
    joint = type(joint)(1, joint.inputs, joint.traces, joint.rows, joint.labels.clamp(max=1))
    bound = dml(variant="as_released").losses(joint, multi_label=False)[1]["kl01"]
    assert bound.item() == pytest.approx(18.42, abs=0.01), "log 1e8"
    assert dml().losses(joint, multi_label=False)[1]["kl01"].item() == pytest.approx(40.0)


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_one_loss_moves_one_peer(variant: str) -> None:
    for peers in (2, 3):
        assert_one_loss_moves_one_peer(partial(dml(peers, variant=variant).losses, multi_label=False), peers)


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_with_weight_zero_every_peer_is_alone(bench: Any, variant: str) -> None:
    run = bench.run("dml", models=SMALL, lam=0.0, variant=variant, patience=None)
    model = resolve("dml", {"models": SMALL}).models["gcn"]  # type: ignore[attr-defined]
    alone = bench.run("teacher", backbone="gcn", model=model, lr=0.01, weight_decay=5e-4, fanouts=(), patience=None)
    assert identical(run.final["peer0"], alone.final["model"])
    assert "terms/kl01" not in run.scored.arrays


def test_where_peers_imitate_is_part_of_the_configuration_and_of_the_training(bench: Any) -> None:
    assert dml(nodes="train").config() != dml(nodes="all").config()
    train, everywhere = (bench.run("dml", models=SMALL, nodes=nodes).final["peer0"] for nodes in ("train", "all"))
    assert not identical(train, everywhere)


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
def test_peers_and_their_ensemble_are_scored(bench: Any, update: str) -> None:
    run = bench.run("dml", models=SMALL, update=update)
    assert [model.name for model in run.scored.models] == ["peer0", "peer1", "ensemble"]
    assert run.outcome.models[0]["weights_sha256"] != run.outcome.models[1]["weights_sha256"]
