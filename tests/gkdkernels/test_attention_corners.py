"""Attention where scores are exactly 0, where sources are masked by minus infinity, and where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import product

import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate
from torch import Tensor

BACKENDS = ["reference", "cpu", "triton"] + ["numba"] * (find_spec("numba") is not None)
DTYPES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
N, HEADS, WIDTH, SLOPE = 12, 2, 3, 0.2


@pytest.fixture
def graph() -> CSRGraph:
    generator = torch.Generator().manual_seed(5)
    return CSRGraph.from_edge_index(torch.randint(0, N, (2, 70), generator=generator), N)


def by_hand(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor) -> Tensor:
    """Dense attention in fp64: one softmax a node and head, over its in-edges one by one."""
    out = []
    for i in range(graph.num_dst):
        sources = graph.index[graph.indptr[i] : graph.indptr[i + 1]].long()
        raw = el[sources] + er[i]  # [in-edges, HEADS]
        p = torch.where(raw > 0, raw, SLOPE * raw).softmax(0)
        out.append((p[:, :, None] * h[sources]).sum(0))
    return torch.stack(out)


def gradients(out: Tensor, leaves: Sequence[Tensor], upstream: Tensor) -> list[Tensor]:
    return [grad.double() for grad in torch.autograd.grad(out, leaves, upstream.to(out.dtype))]


def small_integers(*shape: int, seed: int) -> Tensor:
    """-2 to 2: sums are exact in every dtype, and every fifth or so is 0."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).double()


def compare(backend: str, dtype: torch.dtype, graph: CSRGraph, el: Tensor, er: Tensor) -> list[float]:
    """Relative errors of the gradients of h, el and er."""
    h, upstream = small_integers(N, HEADS, WIDTH, seed=1), small_integers(N, HEADS, WIDTH, seed=2)
    exact = [t.clone().requires_grad_() for t in (h, el, er)]
    wanted = gradients(by_hand(graph, *exact), exact, upstream)
    leaves = [t.to(dtype).requires_grad_() for t in (h, el, er)]
    found = gradients(gat_aggregate(graph, *leaves, backend=backend), leaves, upstream)
    return [float((a - b).norm() / b.norm().clamp(min=1)) for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize(("backend", "dtype"), list(product(BACKENDS, DTYPES)))
def test_a_score_of_zero_has_the_negative_slope(backend: str, dtype: torch.dtype, graph: CSRGraph) -> None:
    el, er = small_integers(N, HEADS, seed=3), small_integers(N, HEADS, seed=4)
    zero = (el[graph.index] + er[graph.row]) == 0
    assert 0.1 < float(zero.double().mean()) < 0.5
    assert max(compare(backend, dtype, graph, el, er)) < DTYPES[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_that_starts_at_zero_learns_with_the_negative_slope(backend: str, graph: CSRGraph) -> None:
    el = torch.zeros(N, HEADS, dtype=torch.float64)
    assert max(compare(backend, torch.float64, graph, el, el.clone())) < 1e-10


def test_the_slope_of_one_would_be_seen(graph: CSRGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: 1 at a score of 0, as it was."""
    cpu = import_module("gkdkernels.gat.cpu")
    honest = cpu._softmax

    def steep(graph: CSRGraph, el: Tensor, er: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        p, negative_part = honest(graph, el, er, slope)
        raw = el.double().t()[:, graph.index] + er.double().t()[:, graph.row]
        return p, negative_part.where(raw != 0, 0)

    monkeypatch.setattr(cpu, "_softmax", steep)
    el, er = small_integers(N, HEADS, seed=3), small_integers(N, HEADS, seed=4)
    assert max(compare("cpu", torch.float64, graph, el, er)) > 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("masked", "hubs"), [(4, False), (20, False), (30, True)])
def test_masked_sources_count_for_nothing(
    backend: str, masked: int, hubs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More sources in a row are masked than a tile of a kernel holds, and whole chunks of a hub."""
    if hubs:
        monkeypatch.setattr("gkdkernels.graph.HUB_EDGES", 8)
    n = 40
    graph = CSRGraph.from_edge_index(torch.stack([torch.arange(n), torch.zeros(n, dtype=torch.int64)]), (1, n))
    generator = torch.Generator().manual_seed(6)
    h, el, er = (torch.rand(s, generator=generator, dtype=torch.float64) for s in ((n, 1, 4), (n, 1), (1, 1)))
    el[:masked] = -torch.inf
    leaves = [t.clone().requires_grad_() for t in (h, el, er)]
    out = gat_aggregate(graph, *leaves, backend=backend)
    wanted = (el[masked:, 0].add(er[0, 0]).softmax(0)[:, None] * h[masked:, 0]).sum(0)
    torch.testing.assert_close(out[0, 0].detach(), wanted)
    grad_h, grad_el, _ = torch.autograd.grad(out[0].sum(), leaves)
    assert bool((grad_h[:masked] == 0).all()) and bool((grad_el[:masked] == 0).all())
    assert bool(grad_h[masked:].isfinite().all()) and bool(grad_el.isfinite().all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_masked_sources_alone_shows(backend: str) -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 1], [0, 0, 1]]), 2)
    el = torch.tensor([[-torch.inf], [-torch.inf]])
    out = gat_aggregate(graph, torch.ones(2, 1, 2), el, torch.zeros(2, 1), backend=backend)
    assert bool(out.isnan().all())


@pytest.mark.parametrize(("backend", "shape"), list(product(BACKENDS, ((0, 3), (2, 0)))))
def test_no_heads_or_no_width(backend: str, shape: tuple[int, int], graph: CSRGraph) -> None:
    heads, width = shape
    leaves = [torch.rand(N, heads, *rest, requires_grad=True) for rest in ((width,), (), ())]
    out = gat_aggregate(graph, *leaves, dropout=0.5, key=1, backend=backend)
    assert out.shape == (N, heads, width)
    grads = torch.autograd.grad(out.sum(), leaves)
    assert [g.shape for g in grads] == [t.shape for t in leaves] and all(bool((g == 0).all()) for g in grads)
