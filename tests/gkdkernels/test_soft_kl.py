"""KL to a soft target against an oracle in fp64, written from the formula in NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import Logits, LogProbs, Probs, soft_kl
from torch import Tensor

Draw = Callable[..., Tensor]
BACKENDS = ["reference", "cpu", "triton"]
KINDS = [(Logits, False), (Probs, False), (LogProbs, False), (Logits, True), (Probs, True)]
TAU = 2.3
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def distributions(kind: Any, multi_label: bool, z: np.ndarray, t: np.ndarray) -> tuple[list[np.ndarray], ...]:
    """p and q, of the classes or of each label being there and not."""

    def soft(x: np.ndarray) -> list[np.ndarray]:
        if multi_label:
            return [1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))]
        e = np.exp(x)
        return [e / e.sum(-1, keepdims=True)]

    given = [t, 1 - t] if multi_label else [t]
    p = {Logits: lambda: soft(t / TAU), Probs: lambda: given, LogProbs: lambda: [np.exp(t)]}[kind]()
    return p, soft(z / TAU)


def oracle(kind: Any, multi_label: bool, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """[N]"""
    p, q = distributions(kind, multi_label, z, t)
    rows: np.ndarray = sum((a * (np.log(a) - np.log(b))).sum(-1) for a, b in zip(p, q, strict=True))
    return rows / (z.shape[-1] if multi_label else 1)


def target_of(kind: Any, multi_label: bool, logits: Tensor) -> Tensor:
    """Values of the right type."""
    if kind is Logits:
        return logits
    if multi_label:
        return logits.sigmoid()
    return logits.softmax(-1) if kind is Probs else logits.log_softmax(-1)


def along(x: Tensor) -> Tensor:
    """A direction to differentiate in."""
    return torch.sin(torch.arange(x.numel(), dtype=torch.float64) * 1.7 + 0.3).view(x.shape)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "multi_label"), KINDS)
@pytest.mark.parametrize("shape", [(63, 7), (1, 1), (5, 47), (300, 2)], ids=str)
def test_values_and_gradients(
    kind: Any, multi_label: bool, shape: tuple[int, int], backend: str, draw: Draw, device: torch.device
) -> None:
    z, g = draw(*shape), draw(shape[0])
    t = target_of(kind, multi_label, draw(*shape))
    leaves = [x.to(device, copy=True).requires_grad_() for x in (z, t)]
    rows = soft_kl(
        leaves[0],
        kind(leaves[1]),
        tau=TAU,
        detach_target=False,
        multi_label=multi_label,
        reduction="none",
        backend=backend,
    )
    np.testing.assert_allclose(
        rows.detach().cpu(), oracle(kind, multi_label, z.numpy(), t.numpy()), rtol=1e-10, atol=1e-10
    )
    grads = torch.autograd.grad(rows, leaves, g.to(device))
    for i, grad in enumerate(grads):
        moved = [[x + step * along(x) * (i == j) for j, x in enumerate((z, t))] for step in (1e-6, -1e-6)]
        up, down = (oracle(kind, multi_label, a.numpy(), b.numpy()) for a, b in moved)
        wanted = (up - down) @ g.numpy() / 2e-6
        np.testing.assert_allclose(float((grad.cpu() * along(grad)).sum()), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_masked_weighted_and_averaged(backend: str, draw: Draw, device: torch.device) -> None:
    z, t, w = draw(40, 5).to(device), draw(40, 5).to(device), draw(40).abs().to(device).requires_grad_()
    mask = torch.arange(40, device=device) % 3 == 0
    rows = soft_kl(z, Logits(t), reduction="none", backend=backend)
    loss = soft_kl(z, Logits(t), mask=mask, weight=w, backend=backend)
    torch.testing.assert_close(loss, (rows * w)[mask].mean())
    torch.testing.assert_close(torch.autograd.grad(loss, w)[0], rows * mask / mask.sum())
    assert soft_kl(z, Logits(t), mask=mask & False, backend=backend) == 0
    assert not soft_kl(z, Logits(t), mask=mask, reduction="none", backend=backend)[~mask].any()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [Logits, Probs])
def test_precisions(kind: Any, backend: str, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    z, t = draw(63, 7).to(dtype), target_of(kind, False, draw(63, 7)).to(dtype)
    exact, leaf = z.double().requires_grad_(), z.to(device, copy=True).requires_grad_()
    wanted = soft_kl(exact, kind(t.double()), tau=TAU, backend="reference")
    loss = soft_kl(leaf, kind(t.to(device)), tau=TAU, backend=backend)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss.double().cpu(), wanted, rtol=1e-5, atol=1e-6)
    (grad,), (true,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(wanted, exact)
    assert (grad.double().cpu() - true).norm() / true.norm() < TOLERANCE[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_zero_at_the_target_and_never_negative(backend: str, tau: float, draw: Draw, device: torch.device) -> None:
    z, t = (10 * draw(50, 7)).to(device), (10 * draw(50, 7)).to(device)
    for multi_label in (False, True):
        same = soft_kl(z, Logits(z), tau=tau, multi_label=multi_label, reduction="none", backend=backend)
        assert same.abs().max() < 1e-12
        assert (soft_kl(z, Logits(t), tau=tau, multi_label=multi_label, reduction="none", backend=backend) > 0).all()
    shifted = soft_kl(z + 5, Logits(t - 3), tau=tau, backend=backend)
    torch.testing.assert_close(shifted, soft_kl(z, Logits(t), tau=tau, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_three_types_of_one_target_agree(backend: str, draw: Draw, device: torch.device) -> None:
    z, t = draw(20, 5).to(device), draw(20, 5).to(device)
    soft = (t / TAU).softmax(-1)
    wanted = soft_kl(z, Logits(t), tau=TAU, backend=backend)
    torch.testing.assert_close(soft_kl(z, Probs(soft), tau=TAU, backend=backend), wanted)
    torch.testing.assert_close(soft_kl(z, LogProbs(soft.log()), tau=TAU, backend=backend), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_certain_targets_stay_finite(backend: str, draw: Draw, device: torch.device) -> None:
    z = draw(6, 4).to(device).requires_grad_()
    one_hot = torch.eye(4, dtype=torch.float64, device=device)[[0, 1, 2, 3, 0, 1]].requires_grad_()
    for target in (Probs(one_hot), LogProbs(one_hot.detach().log().requires_grad_())):
        loss = soft_kl(z, target, detach_target=False, backend=backend)
        wanted = torch.nn.functional.cross_entropy(z, one_hot.argmax(-1))
        torch.testing.assert_close(loss, wanted)
        assert all(x.isfinite().all() for x in torch.autograd.grad(loss, (z, target.value)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_and_empty_inputs(backend: str, draw: Draw, device: torch.device) -> None:
    z, t = draw(7, 20).t().to(device), draw(40, 14)[::2, ::2].to(device)
    torch.testing.assert_close(
        soft_kl(z, Logits(t), backend=backend), soft_kl(z.contiguous(), Logits(t.contiguous()), backend="reference")
    )
    for shape in ((0, 5), (3, 0)):
        empty = draw(*shape).to(device).requires_grad_()
        loss = soft_kl(empty, Logits(empty), detach_target=False, backend=backend)
        assert loss == 0
        assert torch.autograd.grad(loss, empty)[0].shape == shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(backend: str, draw: Draw, device: torch.device) -> None:
    z, t = draw(63, 7).float().to(device), draw(63, 7).float().to(device)
    before = z.clone(), t.clone()
    runs = []
    for _ in range(2):
        leaf = z.clone().requires_grad_()
        loss = soft_kl(leaf, Logits(t), tau=TAU, backend=backend)
        runs.append((loss, *torch.autograd.grad(loss, leaf)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert torch.equal(z, before[0])
    assert torch.equal(t, before[1])


def test_blocks_of_rows_are_one_block(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    z, t = draw(30, 5).requires_grad_(), draw(30, 5)
    whole = soft_kl(z, Logits(t), backend="cpu")
    wanted = torch.autograd.grad(whole, z)[0]
    monkeypatch.setattr(sys.modules["gkdkernels.soft_kl.op"], "_BLOCK_ELEMENTS", 35)
    cut = soft_kl(z, Logits(t), backend="cpu")
    torch.testing.assert_close(cut, whole)
    torch.testing.assert_close(torch.autograd.grad(cut, z)[0], wanted)


@pytest.mark.parametrize(("kind", "multi_label"), KINDS)
def test_gradcheck(kind: Any, multi_label: bool, draw: Draw) -> None:
    z, t, w = draw(4, 3), target_of(kind, multi_label, draw(4, 3)), draw(4)

    def run(z: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return soft_kl(z, kind(t), tau=TAU, weight=w, detach_target=False, multi_label=multi_label, backend="cpu")

    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in (z, t, w)])


def test_compiles_whole(draw: Draw) -> None:
    z, t = draw(20, 5).requires_grad_(), draw(20, 5)

    def run(z: Tensor, t: Tensor) -> Tensor:
        return soft_kl(1.5 * z, Probs(t.softmax(-1)), tau=TAU, backend="cpu")

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(z, t), run(z, t))
    torch.testing.assert_close(torch.autograd.grad(compiled(z, t), z), torch.autograd.grad(run(z, t), z))


Z = torch.zeros(9, 4)
UNIFORM = torch.full((9, 4), 0.25)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": Z}, r"target: expected Logits\(...\), Probs\(...\) or LogProbs\(...\), got Tensor"),
        (
            {"target": LogProbs(UNIFORM)},
            "target: expected LogProbs, rows of a distribution, got values from 0.25 to 0.25",
        ),
        ({"target": Probs(UNIFORM.log())}, "target: expected Probs, rows of a distribution, got values from -1.39"),
        ({"target": LogProbs(UNIFORM.log() / 4)}, "target: expected LogProbs, rows of a distribution"),
        (
            {"target": LogProbs(UNIFORM.log()), "multi_label": True},
            "target: expected Logits or Probs with multi_label=True",
        ),
        ({"target": Probs(3 * UNIFORM)}, "target: expected Probs, .* row sums of probabilities from 3 to 3"),
        ({"target": Logits(Z[:8])}, r"target: expected float of shape \[9, 4\] on cpu like student, got .*\(8, 4\)"),
        ({"student": Z[0]}, r"student: expected float of shape \[N, C\], got torch.float32 of \(4,\)"),
        ({"mask": torch.ones(9)}, r"mask: expected bool of shape \[9\] on cpu, got torch.float32"),
        ({"weight": torch.ones(8)}, r"weight: expected float of shape \[9\] on cpu, got torch.float32 of \(8,\)"),
        ({"tau": 0.0}, "tau: expected a positive number, got 0.0"),
        ({"reduction": "sum"}, "reduction: expected one of mean, none, got 'sum'"),
        ({"backend": "cuda"}, "backend of soft_kl: expected one of auto, reference, cpu, triton, got 'cuda'"),
    ],
)
def test_bad_input(change: dict[str, Any], words: str) -> None:
    asked = {"student": Z, "target": Logits(Z), **change}
    with pytest.raises(ValueError, match=words):
        soft_kl(asked.pop("student"), asked.pop("target"), **asked)
