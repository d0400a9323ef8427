"""Readouts over ragged segments, with empty ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gkdkernels import segment_max, segment_mean, segment_softmax, segment_sum
from torch import Tensor

Readout = Callable[[Tensor, Tensor], Tensor]
ALL = [segment_sum, segment_mean, segment_max, segment_softmax]
POINTERS = [[0], [0, 0], [0, 1], [0, 0, 5, 5, 6, 9, 9]]


def oracle(readout: Readout, x: Tensor, ptr: Tensor) -> Tensor:
    parts = [x[a:b] for a, b in pairwise(ptr.tolist())]
    if readout is segment_softmax:
        return torch.cat([x[:0], *(part.softmax(0) for part in parts)])
    reduce: dict[Readout, Callable[[Tensor, int], Tensor]] = {
        segment_sum: torch.sum,
        segment_mean: torch.mean,
        segment_max: torch.amax,
    }
    zero = x.new_zeros(x.size(1))
    rows = [reduce[readout](part, 0) if len(part) else zero for part in parts]
    return torch.stack(rows) if rows else x.new_zeros(0, x.size(1))


@pytest.mark.parametrize("readout", ALL)
@pytest.mark.parametrize("pointers", POINTERS, ids=str)
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_values_and_gradients(
    readout: Readout, pointers: list[int], integer: torch.dtype, draw: Callable[..., Tensor]
) -> None:
    ptr, x = torch.tensor(pointers, dtype=integer), draw(pointers[-1], 3).requires_grad_()
    got, wanted = readout(x, ptr), oracle(readout, x, ptr.long())
    torch.testing.assert_close(got, wanted)
    assert torch.autograd.gradcheck(lambda t: readout(t, ptr), x)


def test_max_gives_a_tie_to_the_lowest_row() -> None:
    x = torch.tensor([[1.0], [4.0], [4.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(segment_max(x, torch.tensor([0, 3])).sum(), x)
    assert grad.flatten().tolist() == [0.0, 1.0, 0.0]


def test_softmax_is_safe_for_large_values() -> None:
    got = segment_softmax(torch.tensor([[1e4], [0.0], [-1e4]]), torch.tensor([0, 2, 3]))
    assert got.flatten().tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("readout", ALL)
@pytest.mark.parametrize(
    ("x", "ptr", "words"),
    [
        (torch.zeros(3), torch.tensor([0, 3]), r"x: expected shape \[N, D\], got \(3,\)"),
        (torch.zeros(3, 1), torch.tensor([0.0, 3.0]), "ptr: expected shape .* of torch.float32"),
        (torch.zeros(3, 1), torch.tensor([], dtype=torch.int64), r"ptr: expected shape \[G \+ 1\]"),
        (torch.zeros(3, 1), torch.tensor([0, 2]), "ptr: expected values rising from 0 to N=3, got 0..2"),
        (torch.zeros(3, 1), torch.tensor([0, 4, 3]), "ptr: expected values rising"),
        (torch.zeros(3, 1, device="meta"), torch.tensor([0, 3]), "ptr: expected meta, the device of x, got cpu"),
    ],
)
def test_bad_input(readout: Readout, x: Tensor, ptr: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        readout(x, ptr)
