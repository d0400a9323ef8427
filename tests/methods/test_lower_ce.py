"""The lower cross-entropy teaches: who teaches whom, where, and how much (docs/protocol.md: H1, H3, trap 13)."""

from functools import partial
from typing import Any

import pytest
import torch
from support.peer_formulas import (
    assert_equal_with_gradients,
    assert_one_loss_moves_one_peer,
    cross_entropy,
    divergence,
    entropy,
    joint_of,
    logits_of,
)

from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}, "sage": {"hidden": 8}}


def lower_ce(peers: int = 2, **overrides: Any) -> Any:
    return resolve("lower_ce", {"peers": ["gcn"] * peers, **overrides})


@pytest.mark.parametrize("direction", ["lower", "higher"])
@pytest.mark.parametrize("peers", [2, 3])
def test_loss_and_gradients_are_those_of_the_formula(peers: int, direction: str) -> None:
    logits = logits_of(peers)
    joint = joint_of(logits)
    got, readings = lower_ce(peers, lam=0.7, direction=direction).losses(joint, multi_label=False)
    p = [z.softmax(1) for z in logits]
    known_p = [q.detach() for q in p]
    best = max if direction == "higher" else min
    teacher = []
    for item in range(len(p[0])):
        at = (joint.rows == item).nonzero().flatten().tolist()
        known = joint.labels[at[0]] if at else None
        scores = [float(entropy(q)[item]) if known is None else -float(q[item, known].log()) for q in known_p]
        teacher.append(scores.index(best(scores)))
    taught_by = torch.tensor(teacher)
    wanted = []
    for j, z in enumerate(logits):
        loss = cross_entropy(z, joint)
        for i in range(peers):
            if i != j and bool((taught_by == i).any()):
                loss = loss + 0.7 / (peers - 1) * divergence(p[i], p[j])[taught_by == i].mean()
        wanted.append(loss)
    assert_equal_with_gradients(got, torch.stack(wanted), logits)
    assert [readings[f"teaches.peer{k}"].item() for k in range(peers)] == pytest.approx(
        [teacher.count(k) / len(teacher) for k in range(peers)]
    )


def test_with_several_labels_unknown_ones_do_not_count() -> None:
    """Of the item with an unknown label only the known ones say who is better."""
    first, second = logits_of(2)
    joint = joint_of([first, second], several=True)
    row = joint.rows[3]
    with torch.no_grad():
        second[row] = first[row]
        second[row, 1] += 5.0
    readings = lower_ce(direction="higher").losses(joint, multi_label=True)[1]
    with torch.no_grad():
        second[row, 1] -= 10.0
    assert readings["teaches.peer1"] == lower_ce(direction="higher").losses(joint, multi_label=True)[1]["teaches.peer1"]


def test_one_loss_moves_one_peer() -> None:
    assert_one_loss_moves_one_peer(partial(lower_ce(3).losses, multi_label=False), 3)


def test_random_teachers_are_drawn_anew_and_again(bench: Any) -> None:
    """From the cell's seed: a second source draws the same, the next step another."""
    method, joint = lower_ce(direction="random"), joint_of(logits_of(2))
    draws, again = Randomness(0, 2), Randomness(0, 2)
    first, next_one = (method.losses(joint, multi_label=False, draws=draws)[0] for _ in range(2))
    assert not torch.equal(first, next_one)
    assert torch.equal(first, method.losses(joint, multi_label=False, draws=again)[0])
    final = [bench.run("lower_ce", models=SMALL, direction=way).final["peer0"] for way in ("lower", "random", "higher")]
    assert not identical(final[0], final[1]) and not identical(final[0], final[2])


def test_with_weight_zero_every_peer_is_alone(bench: Any) -> None:
    alone = bench.run("dml", models=SMALL, lam=0.0).final
    run = bench.run("lower_ce", models=SMALL, lam=0.0).final
    assert all(identical(run[name], state) for name, state in alone.items())
