"""OKDDip: attention over auxiliaries, a leader, and targets that are constants (protocol.md: H1, H2, H3, trap 13)."""

from typing import Any

import pytest
import torch
from support.peer_formulas import ITEMS, assert_equal_with_gradients, cross_entropy, joint_of, logits_of
from torch import Tensor

from gkdbench.methods.mutual.okddip import PeerAttention
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.ramp_up import ramp
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}}
WIDTH = 16


def okddip(**overrides: Any) -> Any:
    return resolve("okddip", {"peers": ["gcn"] * 4, "epochs": 50, **overrides})


def situation(epoch: int = 4) -> tuple[list[Tensor], list[Tensor], Any, PeerAttention]:
    """Logits and hidden features of a leader and three auxiliaries, their joint forward, a gate."""
    logits = logits_of(4)
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(ITEMS, WIDTH, generator=generator).double().requires_grad_() for _ in range(4)]
    gate = PeerAttention(WIDTH, Randomness(0)).double()
    return logits, hidden, joint_of(logits, hidden=hidden, epoch=epoch), gate


def written_out(
    method: Any, logits: list[Tensor], hidden: list[Tensor], joint: Any, gate: PeerAttention | None
) -> Tensor:
    released = method.variant == "as_released"
    rows = joint.rows if method.nodes == "train" else torch.arange(ITEMS)
    held = [z if released else z.detach() for z in logits]
    features = [h.relu() if released else h.relu().detach() for h in hidden]

    def kl(target: Tensor, z: Tensor) -> Tensor:
        p, q = (target / 3).softmax(1) + (1e-7 if released else 0.0), (z / 3).softmax(1)
        return 9 * (p * (p / q).log()).sum(1)[rows].mean()

    weight = method.lam * ramp(joint.epoch, 80 if released else 10)
    losses = [cross_entropy(logits[0], joint) + weight * kl((held[1] + held[2] + held[3]) / 3, logits[0])]
    for i in (1, 2, 3):
        if gate is None:
            share = torch.full((ITEMS, 3), 1 / 3, dtype=torch.float64)
        else:
            scores = [((features[i] @ gate.query.weight) * (features[j] @ gate.key.weight)).sum(1) for j in (1, 2, 3)]
            share = torch.stack(scores, dim=1).softmax(1)
        target = sum(share[:, [j - 1]] * held[j] for j in (1, 2, 3))
        losses.append(cross_entropy(logits[i], joint) + weight * kl(target, logits[i]))  # type: ignore[arg-type]
    return torch.stack(losses)


@pytest.mark.parametrize("nodes", ["all", "train"])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_loss_and_gradients_are_those_of_the_formula(variant: str, attention: bool, nodes: str) -> None:
    """Gradients in logits, features and the gate, of the sum as of each loss: the release's reach other peers."""
    logits, hidden, joint, gate = situation()
    method = okddip(lam=0.7, variant=variant, nodes=nodes)
    given = gate if attention else None
    got, _ = method.losses(joint, multi_label=False, gate=given)
    wanted = written_out(method, logits, hidden, joint, given)
    assert_equal_with_gradients(got, wanted, [*logits, *hidden, *gate.parameters()])


def moved_by_others(variant: str) -> list[bool]:
    """Which peers' logits feel the loss of auxiliary 1."""
    logits, _, joint, gate = situation()
    value = okddip(variant=variant).losses(joint, multi_label=False, gate=gate)[0][1]
    grads = torch.autograd.grad(value, logits, allow_unused=True, materialize_grads=True)
    return [bool(grad.any()) for grad in grads]


def test_only_the_release_pulls_the_peers_that_make_a_target() -> None:
    assert moved_by_others("corrected") == [False, True, False, False]
    assert moved_by_others("as_released") == [False, True, True, True]


def test_the_gate_learns_from_constant_targets() -> None:
    _, hidden, joint, gate = situation()
    loss = okddip().losses(joint, multi_label=False, gate=gate)[0].sum()
    grads = torch.autograd.grad(loss, [*gate.parameters(), *hidden], allow_unused=True, materialize_grads=True)
    assert [bool(grad.any()) for grad in grads] == [True, True, False, False, False, False]


def test_the_ramp() -> None:
    assert ramp(0, 80) == pytest.approx(0.0067, abs=1e-4) and ramp(40, 80) == pytest.approx(0.2865, abs=1e-4)
    assert ramp(80, 80) == ramp(200, 80) == 1.0


def test_with_several_labels_the_divergence_is_bernoullis() -> None:
    logits = logits_of(3)
    joint = joint_of(logits, several=True, hidden=[torch.zeros(ITEMS, WIDTH).double()] * 3, epoch=50)
    loss, terms = okddip(peers=["gcn"] * 3).losses(joint, multi_label=True, gate=None)
    assert torch.isfinite(loss).all() and terms["soft"] > 0
    same = joint_of([logits[0]] * 3, several=True, hidden=[torch.zeros(ITEMS, WIDTH).double()] * 3, epoch=50)
    assert okddip(peers=["gcn"] * 3).losses(same, multi_label=True, gate=None)[1]["soft"].item() == pytest.approx(0.0)


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_without_transfer_the_leader_is_the_solo_run(bench: Any, variant: str) -> None:
    options: dict[str, Any] = {"models": SMALL, "patience": None, "variant": variant}
    leader = bench.run("okddip", peers=["gcn"] * 3, lam=0.0, **options).final
    alone = bench.run("dml", peers=["gcn", "gcn"], lam=0.0, **options).final
    assert list(leader) == ["leader"] and identical(leader["leader"], alone["peer0"])
    taught = bench.run("okddip", peers=["gcn"] * 3, **options).final["leader"]
    uniform = bench.run("okddip", peers=["gcn"] * 3, gate="uniform", **options).final["leader"]
    assert not identical(taught, alone["peer0"])
    assert not identical(taught, uniform)
