"""ONE: branches, their gate, and the mixture that teaches them (docs/protocol.md: H1, H2, H3)."""

from typing import Any

import pytest
import torch
from support.peer_formulas import CLASSES, ITEMS, cross_entropy, joint_of

from gkdbench.methods.mutual.one import BranchGate
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.ramp_up import ramp
from gkdbench.training.resolve import resolve

WIDTH, BRANCHES = 5, 3
SMALL = {"hidden": 8, "layers": 2}


@pytest.mark.parametrize("variant", ["corrected", "as_released"])
def test_loss_and_gradients_are_those_of_the_formula(variant: str) -> None:
    released = variant == "as_released"
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(ITEMS, BRANCHES * CLASSES, generator=generator).double().requires_grad_()
    hidden = torch.randn(ITEMS, WIDTH, generator=generator).double().requires_grad_()
    joint = joint_of([wide], hidden=[hidden], epoch=4)
    gate = BranchGate(WIDTH, BRANCHES, Randomness(0)).double()
    view: Any = type("View", (), {"num_classes": CLASSES, "multi_label": False})
    method: Any = resolve("one", {"variant": variant, "lam": 0.7, "epochs": 50})
    got = method.losses(joint, view=view, gate=gate)[0][0]
    scores = hidden.relu() @ gate.linear.weight
    scores = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    share = scores.relu().softmax(1)
    z = [wide[:, b * CLASSES : (b + 1) * CLASSES] for b in range(BRANCHES)]
    mixed = sum(share[:, [b]] * z[b] for b in range(BRANCHES))
    assert isinstance(mixed, torch.Tensor)
    p = (mixed.detach() / 3).softmax(1) + (1e-7 if released else 0.0)
    wanted = cross_entropy(mixed, joint)
    for branch in z:
        kl = (p * (p / (branch / 3).softmax(1)).log()).sum(1).mean()
        wanted = wanted + cross_entropy(branch, joint) + 0.7 * ramp(4, 80 if released else 10) * 9 * kl
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    moved = [wide, hidden, *gate.parameters()]
    grads = (torch.autograd.grad(value, moved, allow_unused=True, materialize_grads=True) for value in (got, wanted))
    for a, b in list(zip(*grads, strict=True))[:3]:  # the norm's own scale and shift are left at 1 and 0 above
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("setting", ["tran", "multilabel", "graph"])
def test_one_branch_without_transfer_is_the_solo_run(bench: Any, setting: str) -> None:
    options: dict[str, Any] = {"backbone": "gcn", "model": resolve("one", {"model": SMALL}).config()["model"]}
    options |= {"lr": 0.01, "weight_decay": 5e-4, "patience": None, "batch_size": None}
    run = bench.run("one", setting, branches=1, lam=0.0, **options).final["branch"]
    alone = bench.run("teacher", setting, fanouts=(), **options).final["model"]
    assert identical({name.removeprefix("wide."): value for name, value in run.items()}, alone)


def test_a_branch_is_reported_and_the_mixture_is_the_ensemble(bench: Any) -> None:
    run = bench.run("one", model=SMALL)
    assert [model.name for model in run.scored.models] == ["branch", "ensemble"]
    branch, mixture = run.outcome.models
    assert branch["macs"] < mixture["macs"]
    assert not any(name.startswith("gate") for name in run.final["branch"])
    assert any(name.startswith("gate") for name in run.final["ensemble"])


def test_the_transfer_changes_the_branches(bench: Any) -> None:
    alone = bench.run("one", model=SMALL, lam=0.0).final["branch"]
    assert not identical(bench.run("one", model=SMALL).final["branch"], alone)
    released = bench.run("one", model=SMALL, variant="as_released").final["branch"]
    assert not identical(bench.run("one", model=SMALL).final["branch"], released)
