"""The optimiser of `gkdbench.training` is torch's Adam in every bit, and does not import torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from gkdbench.training.steps import adam

IN_A_FRESH_PROCESS = """
import sys, torch
from gkdbench.training.steps import adam
layer = torch.nn.Linear(3, 2)
optimiser = adam(layer, lr=0.1, weight_decay=0.0)
optimiser.zero_grad(set_to_none=True)
layer(torch.ones(4, 3)).sum().backward()
optimiser.step()
print(layer.bias.grad is not None, "torch._dynamo" in sys.modules)
"""


def _trained(decayed: bool, *, ours: bool) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x, y = torch.randn(20, 5), torch.arange(20) % 3
    first, last = list(model[0].parameters()), list(model[2].parameters())
    if ours:
        optimiser = adam(model, lr=0.05, weight_decay=0.1, decayed=first if decayed else None)
    else:
        groups = [{"params": first, "weight_decay": 0.1}, {"params": last, "weight_decay": 0.0 if decayed else 0.1}]
        optimiser = torch.optim.Adam(groups, lr=0.05, fused=True)
    for _ in range(10):
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    assert all(p.grad is not None and not p.grad.requires_grad for p in model.parameters())
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("decayed", [False, True])
def test_steps_are_those_of_torch_in_every_bit(decayed: bool) -> None:
    pairs = zip(_trained(decayed, ours=True), _trained(decayed, ours=False), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_gradients_may_stay_as_zeros() -> None:
    layer = nn.Linear(3, 2)
    optimiser = adam(layer, lr=0.1, weight_decay=0.0)
    layer(torch.ones(4, 3)).sum().backward()
    optimiser.zero_grad(set_to_none=False)
    assert layer.weight.grad is not None and not layer.weight.grad.any()


def test_a_step_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr
