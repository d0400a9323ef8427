"""What methods of peers are checked against: joint forwards by hand, losses written out in double precision."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gkdbench.nn.model import Trace
from gkdbench.training.mutual import JointForward

ITEMS, CLASSES = 20, 3


def logits_of(peers: int, *, scale: float = 2.0, seed: int = 0) -> list[Tensor]:
    """`peers` tensors [20, 3] float64 that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ITEMS, CLASSES)
    return [(scale * torch.randn(shape, generator=generator).double()).requires_grad_() for _ in range(peers)]


def joint_of(
    logits: Sequence[Tensor], *, several: bool = False, hidden: Sequence[Tensor] = (), epoch: int = 1
) -> JointForward:
    """A joint forward on 20 items, of which 7 are labelled; with `several` labels one entry of them is unknown."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randperm(ITEMS, generator=generator)[:7]
    labels = torch.randint(CLASSES, (7,), generator=generator)
    if several:
        labels = torch.randint(2, (7, CLASSES), generator=generator).double()
        labels[3, 1] = float("nan")
    traces = tuple(Trace(z, (hidden[k],) if hidden else ()) for k, z in enumerate(logits))
    inputs: Any = type("Inputs", (), {"items": range(ITEMS), "segments": None})
    return JointForward(epoch, inputs, traces, rows, labels)


def cross_entropy(z: Tensor, joint: JointForward) -> Tensor:
    """Mean over labelled items (known entries) of minus the log-likelihood."""
    if joint.labels.is_floating_point():
        known = ~joint.labels.isnan()
        y, p = joint.labels[known], z[joint.rows].sigmoid()[known]
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    return -z[joint.rows].softmax(1).log()[torch.arange(len(joint.rows)), joint.labels].mean()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """[N] ``KL(p || q)`` of rows of probabilities, the first detached."""
    p = p.detach()
    return (p * (p / q).log()).sum(1)


def bernoulli_divergence(p: Tensor, q: Tensor) -> Tensor:
    """[N] mean over labels of the KL of Bernoulli variables, the first detached."""
    p = p.detach()
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1)


def entropy(p: Tensor) -> Tensor:
    """[N] of rows of probabilities."""
    return -(p * p.log()).sum(1)


def assert_equal_with_gradients(got: Tensor, wanted: Tensor, of: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    """Two [K] losses are the same numbers, with the same Jacobian in the tensors `of`."""
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    for first, second in zip(got, wanted, strict=True):
        a, b = (
            torch.autograd.grad(value, of, retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in (first, second)
        )
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def assert_one_loss_moves_one_peer(losses: Callable[[JointForward], Any], peers: int, **options: Any) -> None:
    """The gradient of loss j in peer i's logits is 0 for i != j, and something for i = j (trap 13)."""
    logits = logits_of(peers)
    values = losses(joint_of(logits, **options))[0]
    for j, value in enumerate(values):
        grads = torch.autograd.grad(value, logits, retain_graph=True, allow_unused=True, materialize_grads=True)
        for i, grad in enumerate(grads):
            assert bool(grad.any()) == (i == j), f"loss {j} in the logits of peer {i}"
