"""Classes, experts and segments out of range: the same error everywhere, before anything is read or written by them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from gkdkernels import check_indices, expert_linear, memory_update, mutual_kl, segment_mean
from gkdkernels.core.indices import check_indices_of, flag_for, raise_flagged

NUMBA = ["numba"] * (find_spec("numba") is not None)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton", *NUMBA])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("label", [4, 255, 10**9])
def test_classes(label: int, dtype: torch.dtype, backend: str) -> None:
    targets = torch.tensor([0, 1, label, -1, 2], dtype=dtype)
    logits, weight = torch.randn(2, 5, 4, requires_grad=True), torch.ones(2, 2)
    with pytest.raises(ValueError, match=rf"targets: expected values in \[0, 4\), or negative .*got -1\.\.{label}"):
        mutual_kl(logits, pair_weight=weight, targets=targets, backend=backend)
    targets[2] = 3
    assert bool(mutual_kl(logits, pair_weight=weight, targets=targets, backend=backend)[0].isfinite().all())
    with pytest.raises(ValueError, match=r"targets: expected values in \[0, 0\)"):
        mutual_kl(logits[:, :, :0], pair_weight=weight, targets=targets, backend=backend)


def test_the_registered_operator_looks_by_itself() -> None:
    """What a compiled function calls, whose trace does not know the values."""
    rest = (torch.ones(3), False, False, False, False, "cpu")
    with pytest.raises(ValueError, match="targets: expected values in"):
        torch.ops.gkdkernels.peer_pass([torch.randn(3, 4)], False, None, None, torch.tensor([0, 9, 1]), None, *rest)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("expert", [-1, 3, 10**9])
def test_experts(expert: int, backend: str) -> None:
    x, index, alpha = torch.randn(2, 4), torch.tensor([[0], [expert]]), torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"index: expected values in \[0, 3\)"):
        expert_linear(x, torch.randn(3, 4, 5), None, index, alpha, backend=backend)
    with pytest.raises(ValueError, match=r"index: expected values in \[0, 3\)"):
        memory_update(torch.randn(3, 4), x, index, alpha)


@pytest.mark.skipif(not NUMBA, reason="numba is not installed")
def test_compiled_loops_do_not_read_outside_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check in front: such a row is left out, as without a label."""
    monkeypatch.setattr(import_module("gkdkernels.mutual_kl.op"), "check_range", lambda *_: None)
    logits, weight = torch.randn(2, 5, 4, requires_grad=True), torch.ones(2, 2)
    grads = []
    for label in (-1, 4, 10**9):
        targets = torch.tensor([0, 1, label, -1, 2])
        loss, _ = mutual_kl(logits, pair_weight=weight, targets=targets, backend="numba", ce_weight=3.0)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        grads.append(grad[:, 2])
        assert torch.equal(grads[0], grads[-1])


def test_kernels_leave_such_rows_out_and_the_error_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where nothing looks at the values first."""
    monkeypatch.setattr(import_module("gkdkernels.mutual_kl.op"), "check_range", lambda *_: None)
    logits, weight, grads = torch.randn(2, 5, 4, requires_grad=True), torch.ones(2, 2), []
    check_indices()
    for label in (-1, 7):
        loss, _ = mutual_kl(logits, pair_weight=weight, targets=torch.tensor([0, 1, label, -1, 2]), backend="triton")
        grads.append(torch.autograd.grad(loss.sum(), logits)[0][:, 2])
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="targets: expected classes or experts within range"):
        check_indices()
    check_indices()  # said once


def test_flags_belong_to_a_device_and_are_looked_at_in_passing() -> None:
    index = torch.tensor([1])
    flag_for("targets", index).fill_(1)
    raise_flagged(torch.device("meta"))
    with pytest.raises(ValueError, match="targets"):
        raise_flagged(index.device)
    check_indices_of("index", torch.empty(0, dtype=torch.int64), 0)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_bounds_of_segments(backend: str) -> None:
    for bounds in ([0, 2, 9], [0, -1, 4], [1, 4]):
        with pytest.raises(ValueError, match="ptr: expected values rising from 0 to N=4"):
            segment_mean(torch.randn(4, 2), torch.tensor(bounds), backend=backend)
