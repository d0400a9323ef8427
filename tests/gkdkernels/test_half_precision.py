"""Half precision: sums, means and products are formed in fp32 and rounded once; NaN and infinity are shown."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product

import pytest
import torch
from gkdkernels import CSRGraph, gcn_norm, spmm
from torch import Tensor

NUMBA = find_spec("numba") is not None
HALVES = (torch.float16, torch.bfloat16)
BACKENDS = ("auto", "reference", "cpu", "triton")
HUB = 80


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> CSRGraph:
    """One row of 80 sources, which the kernels cut."""
    monkeypatch.setattr("gkdkernels.graph.HUB_EDGES", 16)
    source = torch.arange(HUB)
    return CSRGraph.from_edge_index(torch.stack([source, torch.zeros_like(source)]), (1, HUB))


@pytest.mark.parametrize(("backend", "dtype"), list(product(BACKENDS, HALVES)))
def test_a_mean_fits_where_its_sum_does_not(backend: str, dtype: torch.dtype, hub: CSRGraph) -> None:
    """80000 is no fp16, 1000 is; a bf16 mean of as many rounds once."""
    x = torch.full((HUB, 1), 1000.0, dtype=dtype, requires_grad=True)
    y = spmm(hub, x, reduce="mean", backend=backend)
    assert y.dtype == dtype and y.item() == 1000
    (grad,) = torch.autograd.grad(y.float().sum(), x)
    torch.testing.assert_close(grad.float(), torch.full((HUB, 1), 1 / HUB), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("backend", "dtype"), list(product(BACKENDS, HALVES)))
def test_a_weighted_mean_and_its_gradients(backend: str, dtype: torch.dtype, hub: CSRGraph) -> None:
    x = torch.full((HUB, 1), 500.0, dtype=dtype, requires_grad=True)
    weight = torch.full((HUB,), 2.0, dtype=dtype, requires_grad=True)
    y = spmm(hub, x, weight, "mean", backend=backend)
    assert y.item() == 1000
    for grad, wanted in zip(torch.autograd.grad(y.float().sum(), (x, weight)), (2 / HUB, 500 / HUB), strict=True):
        torch.testing.assert_close(grad.float(), torch.full(grad.shape, wanted), rtol=1e-2, atol=0)
    normed = spmm(hub, x.detach(), gcn_norm(hub), "mean", backend=backend).float()
    torch.testing.assert_close(normed, torch.full((1, 1), 500 / HUB**0.5), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("backend", "reduce"), [("cpu", "sum"), ("triton", "sum"), ("cpu", "max"), ("triton", "max")])
def test_a_product_that_does_not_fit_may_cancel(backend: str, reduce: str) -> None:
    """The weight's gradient ``<g, x>`` is a sum of products of 1e5, which is no fp16; their sum is."""
    graph = CSRGraph.from_edge_index(torch.tensor([[0], [0]]), 1)
    x = torch.tensor([[400.0, -400.0, 3.0]], dtype=torch.float16)
    weight = torch.ones(1, dtype=torch.float16, requires_grad=True)
    upstream = torch.tensor([[300.0, 300.0, 2.0]], dtype=torch.float16)
    (grad,) = torch.autograd.grad(spmm(graph, x, weight, reduce, backend=backend), weight, upstream)
    assert grad.tolist() == [6.0]


def dirty(dtype: torch.dtype) -> Tensor:
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[3, 2], x[5, 1], x[6, 1], x[6, 3] = torch.nan, torch.inf, -torch.inf, -torch.inf
    return x


SHOWN = [
    (reduce, backend)
    for reduce, backend in product(("sum", "mean", "max"), ("cpu", "triton", "numba"))
    if backend != "numba" or (NUMBA and reduce == "max")
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize(("reduce", "backend"), SHOWN)
def test_nan_and_infinity_are_shown(reduce: str, backend: str, dtype: torch.dtype) -> None:
    edges = torch.randint(0, 9, (2, 40), generator=torch.Generator().manual_seed(1))
    graph, x = CSRGraph.from_edge_index(edges, 9), dirty(dtype)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(2)).to(dtype)
    for factor in (None, weight):
        wanted = spmm(graph, x.double(), None if factor is None else factor.double(), reduce, backend="reference")
        found = spmm(graph, x, factor, reduce, backend=backend).double()
        assert bool(wanted.isnan().any()) and bool(wanted.isinf().any())
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2, equal_nan=True)


def test_a_sum_that_hides_nan_would_be_seen() -> None:
    """Positive control of the comparison."""
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.zeros(1), torch.tensor([torch.nan]), equal_nan=True)
