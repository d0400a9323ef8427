"""What a mask leaves out reaches neither a loss nor a gradient; a class that is impossible counts 0 log 0 = 0."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from typing import Any

import pytest
import torch
from gkdkernels import Logits, LogProbs, Probs, mutual_kl, soft_kl
from torch import Tensor

NUMBA = ["numba"] * (find_spec("numba") is not None)
SOFT, MUTUAL = ["reference", "cpu", "triton"], ["reference", "cpu", "triton", *NUMBA]
FILLERS = [float("nan"), float("inf"), -float("inf")]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
N, C, K = 9, 5, 3
MASK = torch.arange(N) % 3 > 0
TARGETS = {
    "Logits": (Logits, lambda z: z),
    "Probs": (Probs, lambda z: z.softmax(-1)),
    "LogProbs": (LogProbs, lambda z: z.log_softmax(-1)),
}


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def filled(x: Tensor, value: float, mask: Tensor = MASK) -> Tensor:
    """`x` with `value` in all rows outside `mask`."""
    return x.where(mask.view(-1, *[1] * (x.dim() - 1)), value)


def values_and_gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [y.detach(), *torch.autograd.grad(y.sum(), leaves)]


@pytest.mark.parametrize(("backend", "kind", "dtype"), list(product(SOFT, TARGETS, DTYPES)))
def test_rows_outside_the_mask_of_soft_kl(backend: str, kind: str, dtype: torch.dtype) -> None:
    make, told = TARGETS[kind]
    student, teacher, weight = draw(N, C, seed=1, dtype=dtype), told(draw(N, C, seed=2, dtype=dtype)), draw(N, seed=3)

    def run(value: float) -> list[Tensor]:
        s, t = (filled(x, value).requires_grad_() for x in (student, teacher))
        w = filled(weight, value).requires_grad_()
        loss = soft_kl(s, make(t), mask=MASK, weight=w, detach_target=False, backend=backend)
        return values_and_gradients(loss, [s, t, w])

    for value in FILLERS:
        for found, wanted in zip(run(value), run(0.2), strict=True):
            assert torch.equal(found, wanted)
            if found.dim():
                assert not found[~MASK].any()
    leaf = filled(student, 0.2).requires_grad_()
    soft_kl(leaf, make(teacher), mask=MASK, reduction="none", backend=backend).sum().backward()
    assert leaf.grad is not None and leaf.grad[MASK].any() and not leaf.grad[~MASK].any()


@pytest.mark.parametrize(("backend", "dtype"), list(product(MUTUAL, DTYPES)))
@pytest.mark.parametrize("per_node", [False, True])
@pytest.mark.parametrize("term", ["kl", "ce", "entropy"])
def test_rows_outside_the_masks_of_mutual_kl(term: str, per_node: bool, backend: str, dtype: torch.dtype) -> None:
    logits = draw(K, N, C, seed=1, dtype=dtype).transpose(0, 1)
    weight = draw(N, K, 1, seed=2).abs() if per_node else torch.ones(K, K).double()
    options: dict[str, dict[str, Any]] = {
        "kl": {"kl_mask": MASK, "detach_target": False},
        "ce": {"kl_mask": MASK, "targets": torch.where(MASK, 1, -1)},
        "entropy": {"kl_mask": MASK, "entropy_mask": MASK, "entropy_weight": 0.3},
    }

    def run(value: float) -> list[Tensor]:
        z = filled(logits, value).requires_grad_()
        w = (filled(weight, value) if per_node else weight.clone()).requires_grad_()
        loss, kl = mutual_kl(z.transpose(0, 1), pair_weight=w, backend=backend, **options[term])
        assert bool(kl.isfinite().all())
        return values_and_gradients(loss, [z, w])

    plain = run(0.0)
    assert not plain[1][~MASK].any() and plain[1][MASK].any()
    for value in FILLERS:
        for found, wanted in zip(run(value), plain, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5 if dtype != torch.float64 else 1e-12, atol=1e-6)


@pytest.mark.parametrize("backend", MUTUAL)
def test_unknown_labels_of_several(backend: str) -> None:
    labels = torch.where(MASK, 1.0, torch.nan)[:, None].expand(N, C)
    zero, found = torch.zeros(K, K), []
    for value in (0.0, float("nan")):
        z, peers = (
            filled(draw(N, C, seed=1, dtype=torch.float32), value).requires_grad_(),
            draw(K, N, C, seed=2).float(),
        )
        loss, _ = mutual_kl(
            peers, ce_logits=[z] * K, pair_weight=zero, targets=labels, multi_label=True, backend=backend
        )
        found.append(values_and_gradients(loss, [z]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", MUTUAL)
def test_unmasked_nan_shows(backend: str) -> None:
    """The control of all above: it is the mask that leaves rows out."""
    logits = filled(draw(K, N, C, seed=1).transpose(0, 1), float("nan")).transpose(0, 1)
    loss, kl = mutual_kl(logits, pair_weight=torch.ones(K, K), backend=backend)
    assert bool(loss.isnan().all()) and bool((kl.isnan() | torch.eye(K, dtype=torch.bool)).all())
    if backend in SOFT:
        assert bool(soft_kl(logits[0], Logits(draw(N, C, seed=2)), backend=backend).isnan())


@pytest.mark.parametrize(("backend", "dtype"), list(product(SOFT, DTYPES)))
def test_three_ways_to_rule_a_class_out(backend: str, dtype: torch.dtype) -> None:
    teacher, student = draw(N, C, seed=1), draw(N, C, seed=2, dtype=dtype)
    teacher[:, 2] = -torch.inf
    rest = [0, 1, 3, 4]
    for both in (False, True):  # the student too
        s = student.clone()
        s[:, 2] = -torch.inf if both else s[:, 2]
        log_q = s.double().log_softmax(-1)[:, rest]
        wanted = (teacher[:, rest].softmax(-1) * (teacher[:, rest].log_softmax(-1) - log_q)).sum(-1).mean()
        for make, told in TARGETS.values():
            leaf, value = s.clone().requires_grad_(), told(teacher).to(dtype)
            loss, grad = values_and_gradients(soft_kl(leaf, make(value), backend=backend), [leaf])
            torch.testing.assert_close(loss.double(), wanted, rtol=3e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
            assert bool(grad.isfinite().all())
    unlike = student.clone()
    unlike[:, 1] = -torch.inf
    assert soft_kl(unlike, Logits(teacher.to(dtype)), backend=backend) == torch.inf


@pytest.mark.parametrize(("backend", "dtype"), list(product(MUTUAL, DTYPES[:2])))
@pytest.mark.parametrize("per_node", [False, True])
def test_a_class_that_all_peers_rule_out(per_node: bool, backend: str, dtype: torch.dtype) -> None:
    """As if it were not there: loss, KL, entropy and gradients of both sides."""
    rest, logits = [0, 1, 3, 4], draw(K, N, C, seed=1, dtype=dtype)
    weight = draw(N, K, 1, seed=2, dtype=dtype).abs() if per_node else torch.ones(K, K, dtype=dtype)
    options: dict[str, Any] = {"targets": torch.full((N,), 1), "entropy_weight": 0.5, "detach_target": False}

    def run(z: Tensor) -> list[Tensor]:
        leaf, w = z.clone().requires_grad_(), weight.clone().requires_grad_()
        loss, kl = mutual_kl(leaf, pair_weight=w, backend=backend, **options)
        return [kl, *values_and_gradients(loss, [leaf, w])]

    wanted = run(logits[:, :, rest])
    logits[:, :, 2] = -torch.inf
    found = run(logits)
    assert not found[2][:, :, 2].any()
    found[2] = found[2][:, :, rest]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    logits[1, :, 2] = 0.0  # one peer does not: as a teacher it is infinitely far from the others
    kl = mutual_kl(logits, pair_weight=weight, backend=backend)[1]
    assert bool((kl[1, [0, 2]] > 1e30).all()) and bool((kl[0, [1, 2]] < 10).all())
