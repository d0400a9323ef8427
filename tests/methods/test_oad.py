"""OAD: its loss, its discriminators, and what its release does instead (docs/protocol.md: H1, H2, H3, traps 4, 25)."""

from functools import partial
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from support.peer_formulas import (
    CLASSES,
    ITEMS,
    assert_equal_with_gradients,
    cross_entropy,
    divergence,
    joint_of,
    logits_of,
)
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.methods.mutual.oad import Judges
from gkdbench.nn.model import Trace
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.ramp_up import tempered_kl
from gkdbench.training.mutual import JointForward
from gkdbench.training.resolve import resolve

SMALL = {"gcn": {"hidden": 8}}
WIDTH = 4


def oad(**overrides: Any) -> Any:
    return resolve("oad", {"peers": ["gcn"] * 3, "warmup": 0, **overrides})


def ring() -> CSRGraph:
    node = torch.arange(ITEMS)
    return CSRGraph.from_edge_index(torch.stack([node, node.roll(1)]), ITEMS)


def judges_of(count: int, *, rectified: bool = False) -> Judges:
    judges = Judges([WIDTH] * count, 5, 0, rectified=rectified).double()
    judges.optimiser = torch.optim.Adam(judges.parameters(), lr=0.0)
    return judges


def situation(count: int = 3, epoch: int = 1) -> tuple[list[Tensor], list[Tensor], Any]:
    """Logits and hidden features of `count` students, and their joint forward on a ring."""
    logits = logits_of(count)
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(ITEMS, WIDTH, generator=generator).double().requires_grad_() for _ in range(count)]
    joint = joint_of(logits, hidden=hidden, epoch=epoch)
    joint.inputs.graph = ring()
    return logits, hidden, joint


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_loss_and_gradients_are_those_of_the_formula(variant: str) -> None:
    logits, hidden, joint = situation()
    judges = judges_of(3, rectified=variant == "as_released")
    method = oad(kd_weight=0.7, gan_weight=0.3, variant=variant)
    got, _ = method.losses(joint, multi_label=False, judges=judges)
    wanted = []
    for i, z in enumerate(logits):
        mean = torch.stack([y for j, y in enumerate(logits) if j != i]).mean(0)
        kl = 9 * divergence((mean / 3).softmax(1), (z / 3).softmax(1))[joint.rows].mean()
        answer = judges((i + 1) % 3, hidden[i].relu(), joint.inputs.graph).sigmoid()
        share = 1 / (len(joint.rows) * CLASSES) if variant == "as_released" else 1
        wanted.append(cross_entropy(z, joint) + 0.7 * share * kl - 0.3 * answer.log().mean())
    assert_equal_with_gradients(got, torch.stack(wanted), [*logits, *hidden])


@pytest.mark.parametrize(("items", "classes"), [(1, 7), (7, 40), (140, 7)])
def test_the_release_divides_the_divergence_by_items_times_classes(items: int, classes: int) -> None:
    """On Cora's 140 labelled nodes of 7 classes, by 980."""
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(items, classes, generator=generator).double() for _ in range(2)]
    joint = joint_of([torch.zeros(ITEMS, CLASSES)] * 2)
    joint = type(joint)(
        1,
        joint.inputs,
        tuple(type(joint.traces[0])(y, ()) for y in z),
        torch.arange(items),
        torch.zeros(items, dtype=torch.int64),
    )
    pair = {
        v: oad(peers=["gcn"] * 2, gan_weight=0.0, variant=v).losses(joint, multi_label=False, judges=None)[1]["kd"]
        for v in ("corrected", "as_released")
    }
    assert pair["corrected"].item() == pytest.approx(items * classes * pair["as_released"].item())
    p, q = ((y / 3).softmax(1) for y in z)
    written = 9 * (p * (p / q).log() + q * (q / p).log()).mean() / items / 2
    assert pair["as_released"].item() == pytest.approx(written.item())


def test_only_a_linear_end_can_reject() -> None:
    """protocol.md, trap 25: whatever it reads, the release's discriminator says "mine" with probability 0.5 or more."""
    features = 10 * torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    said = {
        end: torch.cat([judges_of(4, rectified=end)(i, features, ring()) for i in range(4)]).sigmoid()
        for end in (True, False)
    }
    assert said[True].min() >= 0.5
    assert said[False].min() < 0.2 and said[False].max() > 0.8


def test_discriminators_learn_to_tell_students_apart() -> None:
    judges = judges_of(2)
    judges.optimiser = torch.optim.Adam(judges.parameters(), lr=0.05)
    features = [torch.ones(ITEMS, WIDTH).double(), -torch.ones(ITEMS, WIDTH).double()]
    losses = [judges.step(features, ring()).item() for _ in range(60)]
    assert losses[-1] < 0.1 < losses[0]
    assert (judges.fooled(features, ring()) > 1).all()


def test_one_loss_moves_one_student_and_no_discriminator_moves_with_it() -> None:
    logits, hidden, joint = situation()
    judges = judges_of(3)
    before = [p.detach().clone() for p in judges.parameters()]
    values, _ = oad().losses(joint, multi_label=False, judges=judges)
    for j, value in enumerate(values):
        for tensors in (logits, hidden):
            grads = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True, materialize_grads=True)
            assert [bool(grad.any()) for grad in grads] == [i == j for i in range(3)]
    assert all(torch.equal(old, new) for old, new in zip(before, judges.parameters(), strict=True))


def test_the_warm_up_is_on_labels_alone() -> None:
    logits, _, joint = situation(epoch=5)
    values, readings = oad(warmup=5).losses(joint, multi_label=False, judges=judges_of(3))
    torch.testing.assert_close(values, torch.stack([cross_entropy(z, joint) for z in logits]))
    assert set(readings) == {"ce"}
    assert set(oad(warmup=4).losses(joint, multi_label=False, judges=judges_of(3))[1]) == {
        "ce",
        "kd",
        "judge",
        "fooled",
    }


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_without_transfer_every_student_is_alone(bench: Any, variant: str) -> None:
    options: dict[str, Any] = {"peers": ["gcn"] * 2, "models": SMALL, "patience": None, "lr": 0.01}
    run = bench.run("oad", kd_weight=0.0, gan_weight=0.0, variant=variant, **options).final
    alone = bench.run("dml", lam=0.0, **options).final
    assert all(identical(run[name], state) for name, state in alone.items())
    assert not identical(bench.run("oad", warmup=0, **options).final["peer0"], alone["peer0"])


def test_students_of_other_widths_are_refused() -> None:
    _, hidden, joint = situation(2)
    traces = (joint.traces[0], Trace(joint.traces[1].logits, (hidden[1][:, :2],)))
    joint = JointForward(1, joint.inputs, traces, joint.rows, joint.labels)
    with pytest.raises(UserError, match="expected one width, got 4, 2"):
        oad().losses(joint, multi_label=False, judges=judges_of(2))


def test_a_tempered_divergence_reaches_its_target_unless_that_is_detached() -> None:
    target, learner = logits_of(2)
    assert torch.autograd.grad(tempered_kl(target, learner, tau=2.0), target)[0].any()
    several = partial(tempered_kl, tau=2.0, multi_label=True)
    assert several(target, target).item() == pytest.approx(0.0) and several(target, learner) > 0
    assert tempered_kl(target, learner, tau=2.0, epsilon=1e-7).item() == pytest.approx(
        tempered_kl(target, learner, tau=2.0).item(), rel=1e-4
    )
