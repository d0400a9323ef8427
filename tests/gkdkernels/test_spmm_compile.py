"""`torch.compile` takes `spmm` whole, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gkdkernels import CSRGraph, gcn_weight, spmm
from torch import Tensor

Draw = Callable[..., Tensor]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_fullgraph(draw: Draw, device: torch.device, reduce: str, backend: str) -> None:
    where = device if backend == "triton" else torch.device("cpu")
    graph = CSRGraph(torch.tensor([0, 2, 2, 5]), torch.tensor([3, 0, 1, 1, 2]), 4).to(where).prepare()
    x, w, g = (t.to(where) for t in (draw(4, 2), draw(5), draw(3, 2)))

    def step(x: Tensor, w: Tensor) -> Tensor:
        return spmm(graph, x, w, reduce, backend=backend).square()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = (x.clone().requires_grad_(), w.clone().requires_grad_())
        y = run(*leaves)
        results.append((y, *torch.autograd.grad(y, leaves, g)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_constant_weights_are_seen_through(odd: CSRGraph, draw: Draw) -> None:
    weight, x = gcn_weight(odd.prepare(), torch.float64), draw(63, 3).requires_grad_()

    def step(x: Tensor) -> Tensor:
        return spmm(odd, spmm(odd, x, gcn_weight(odd, torch.float64)), weight)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    a, b = (torch.autograd.grad(run(x).sum(), x)[0] for run in (step, compiled))
    torch.testing.assert_close(a, b)
