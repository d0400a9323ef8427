"""Triton kernels on ragged graphs that hypothesis makes up: values and gradients are those of the reference in fp64."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate, segment_max, segment_softmax, segment_sum, spmm, structure_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Step = Callable[..., Tensor]
Operator = Callable[[CSRGraph, str], tuple[Step, list[tuple[int, ...]]]]
WIDTH = 5

OPERATORS: dict[str, Operator] = {
    f"spmm {reduce}": lambda graph, backend, reduce=reduce: (  # type: ignore[misc]
        lambda x, w: spmm(graph, x, w, reduce, backend=backend),
        [(graph.num_src, WIDTH), (graph.num_edges,)],
    )
    for reduce in ("sum", "mean", "max")
}
OPERATORS["gat"] = lambda graph, backend: (
    lambda h, a, b: gat_aggregate(graph, h, a, b, backend=backend),
    [(graph.num_src, 2, WIDTH), (graph.num_src, 2), (graph.num_dst, 2)],
)
OPERATORS["structure_kl"] = lambda graph, backend: (
    lambda x: structure_kl(graph, x, x.detach().flip(0), kernel="rbf", sigma=2.0, backend=backend),
    [(graph.num_src, WIDTH)],
)
OPERATORS |= {
    readout.__name__: lambda graph, backend, readout=readout: (  # type: ignore[misc]
        lambda x: readout(x, graph.indptr, backend=backend),
        [(graph.num_edges, WIDTH)],
    )
    for readout in (segment_sum, segment_max, segment_softmax)
}


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(degrees=st.lists(st.integers(0, 9), min_size=0, max_size=7), seed=st.integers(0, 1000), narrow=st.booleans())
def test_as_the_reference(name: str, degrees: list[int], seed: int, narrow: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    nodes, device = len(degrees), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    indptr = torch.tensor([0, *degrees], dtype=torch.int32 if narrow else torch.int64).cumsum(0)
    index = torch.randint(0, max(nodes, 1), (sum(degrees),), generator=generator)
    integer = torch.int32 if narrow else torch.int64
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("graph", "structure_kl.triton"):
            patch.setattr(import_module(f"gkdkernels.{module}"), "HUB_EDGES", 4)  # so that most graphs have hubs
        for backend in ("triton", "reference"):
            graph = CSRGraph(indptr.to(integer), index.to(integer), nodes).to(device)
            step, shapes = OPERATORS[name](graph, backend)
            drawn = torch.Generator().manual_seed(seed + 1)
            leaves = [
                torch.randn(*shape, generator=drawn, dtype=torch.float64).to(device).requires_grad_()
                for shape in shapes
            ]
            value = step(*leaves)
            upstream = torch.randn(value.shape, generator=drawn, dtype=torch.float64).to(device)
            results.append((value, *torch.autograd.grad(value, leaves, upstream)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
