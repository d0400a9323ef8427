"""The triton kernels of `spmm`, under the interpreter or on the GPU, against the formula in fp64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gkdkernels import CSRGraph, gcn_norm, gcn_weight, spmm
from gkdkernels.core.row_tiles_triton import row_blocks
from torch import Tensor

Draw = Callable[..., Tensor]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}
DTYPES = list(TOLERANCE)
REDUCES = ["sum", "mean", "max"]


@pytest.fixture
def ragged(device: torch.device) -> CSRGraph:
    """9 x 9, 30 edges, two rows and a column without any; the interpreter takes milliseconds a row."""
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randint(0, 7, (30,), generator=generator) for _ in range(2))
    return CSRGraph.from_edge_index(torch.stack([source, target]), 9).to(device)


def oracle(graph: CSRGraph, x: Tensor, w: Tensor, g: Tensor, reduce: str) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradients of x and w for ``x: [K, num_src, D]`` and upstream g, in fp64 on the CPU."""
    x, w, g = (t.detach().cpu().double() for t in (x, w, g))
    y, dx, dw = torch.zeros_like(g), torch.zeros_like(x), torch.zeros_like(w)
    index = graph.index.cpu().long()
    for i, (start, stop) in enumerate(pairwise(graph.indptr.tolist())):
        if start == stop:
            continue
        j = index[start:stop]
        messages = w[start:stop, None] * x[:, j]  # [K, e, D]
        if reduce == "max":
            top = messages.amax(1, keepdim=True)
            share = ((messages == top).cumsum(1) == 1) & (messages == top)
        else:
            share = torch.full_like(messages, 1.0 if reduce == "sum" else 1 / (stop - start))
        share = share.double()
        y[:, i] = (share * messages).sum(1)
        back = share * g[:, i, None]
        dx.index_add_(1, j, back * w[start:stop, None])
        dw[start:stop] = (back * x[:, j]).sum((0, 2))
    return y, dx, dw


def close(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    error = (got.detach().cpu().double() - wanted).norm()
    assert error <= TOLERANCE[dtype] * max(1.0, float(wanted.norm())), float(error)


def check(graph: CSRGraph, draw: Draw, device: torch.device, reduce: str, dtype: torch.dtype, k: int, d: int) -> None:
    graph = graph.to(device)
    x, w, g = (
        t.to(dtype).to(device) for t in (draw(k, graph.num_src, d), draw(graph.num_edges), draw(k, graph.num_dst, d))
    )
    before = [t.clone() for t in (x, w, g)]
    leaves = (x.clone().requires_grad_(), w.clone().requires_grad_())
    y = spmm(graph, *leaves, reduce, backend="triton")
    got = (y, *torch.autograd.grad(y, leaves, g))
    for one, other in zip(got, oracle(graph, x, w, g, reduce), strict=True):
        close(one, other, dtype)
    assert all(torch.equal(a, b) for a, b in zip((x, w, g), before, strict=True))


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_values_and_gradients(small_graph: CSRGraph, draw: Draw, device: torch.device, reduce: str) -> None:
    check(small_graph, draw, device, reduce, torch.float32, 1, 3)


@pytest.mark.usefixtures("small_hubs", "poison")
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hubs_in_chunks(draw: Draw, device: torch.device, reduce: str, dtype: torch.dtype) -> None:
    source = torch.cat([torch.arange(11), torch.tensor([0, 3, 1, 2, 3, 4, 5])])
    target = torch.cat([torch.full((11,), 2), torch.tensor([0, 1, 4, 4, 4, 4, 4])])
    graph = CSRGraph.from_edge_index(torch.stack([source, target]), (5, 11))
    assert graph.hubs.row.tolist() == [2, 4]
    assert graph.hubs.chunk.tolist() == [0, 0, 0, 1, 1]
    check(graph, draw, device, reduce, dtype, 2, 7)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(("k", "width"), [(1, 1), (1, 47), (3, 8), (2, 0), (0, 4), (1, 300)])
def test_widths_and_stacks(draw: Draw, device: torch.device, reduce: str, k: int, width: int) -> None:
    graph = CSRGraph(torch.tensor([0, 2, 2, 5]), torch.tensor([3, 0, 1, 1, 2]), 4)
    check(graph, draw, device, reduce, torch.float32, k, width)


@pytest.mark.parametrize("reduce", REDUCES)
def test_strides_flat_inputs_and_two_runs(ragged: CSRGraph, draw: Draw, device: torch.device, reduce: str) -> None:
    graph, x = ragged, draw(6, 9).float().to(device).t()[:, ::2]
    w, g = draw(60).float().to(device)[::2], draw(3, 9).float().to(device).t()

    def run(backend: str) -> tuple[Tensor, ...]:
        leaves = (x.clone().requires_grad_(), w.clone().requires_grad_())
        y = spmm(graph, *leaves, reduce, backend=backend)
        return (y, *torch.autograd.grad(y, leaves, g))

    first, again, reference = run("triton"), run("triton"), run("reference")
    assert torch.equal(spmm(graph, x, w, reduce, backend="triton"), first[0])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for a, b in zip(first, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_stacked_inputs_equal_separate_calls_in_every_bit(ragged: CSRGraph, draw: Draw, device: torch.device) -> None:
    x = draw(2, 9, 5).float().to(device)
    together = spmm(ragged, x, backend="triton")
    assert torch.equal(together, torch.stack([spmm(ragged, one, backend="triton") for one in x]))
    assert torch.equal(together.flip(0), spmm(ragged, x.flip(0), backend="triton"))


@pytest.mark.usefixtures("small_hubs")
def test_max_rules_for_ties_nan_and_infinity(device: torch.device) -> None:
    nan, inf = torch.nan, torch.inf
    graph = CSRGraph(torch.tensor([0, 6, 6, 7]), torch.tensor([5, 4, 3, 2, 1, 0, 3]), 6).to(device)
    columns = [[1, 7, 2, 7, 7, 3], [-inf] * 6, [0, inf, nan, 1, nan, inf], [-1, -2, -3, -4, -1, -2]]
    x = torch.tensor(columns, device=device).t().contiguous().requires_grad_()
    y = spmm(graph, x, reduce="max", backend="triton")
    torch.testing.assert_close(y[0].cpu(), torch.tensor([7, -inf, nan, -1]), equal_nan=True)
    assert y[1].tolist() == [0.0] * 4
    (grad,) = torch.autograd.grad(y[0], x, torch.ones(4, device=device))
    assert grad.argmax(0).tolist() == [4, 5, 4, 4]  # sources of edges 1, 0, 1, 1: the lowest that win
    assert grad.sum(0).tolist() == [1.0] * 4


def test_halves_are_accumulated_in_single(device: torch.device) -> None:
    hub = CSRGraph(torch.tensor([0, 4096]), torch.arange(4096), 4096).to(device)
    got = spmm(hub, torch.ones(4096, 2, dtype=torch.bfloat16, device=device), backend="triton")
    assert got.tolist() == [[4096.0, 4096.0]]  # a bf16 accumulator stops at 256


@pytest.mark.parametrize("reduce", REDUCES)
def test_node_norm(ragged: CSRGraph, draw: Draw, device: torch.device, reduce: str) -> None:
    graph, g = ragged, draw(9, 5).float().to(device)
    x = draw(9, 5).float().to(device).requires_grad_()
    results = []
    for weight, backend in ((gcn_norm(graph), "triton"), (gcn_weight(graph), "reference")):
        y = spmm(graph, x, weight, reduce, backend=backend)
        results.append((y, *torch.autograd.grad(y, x, g)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradcheck(device: torch.device, draw: Draw) -> None:
    graph = CSRGraph(torch.tensor([0, 2, 2, 5]), torch.tensor([3, 0, 1, 1, 2]), 4).to(device)
    x, w = draw(4, 2).to(device).requires_grad_(), draw(5).to(device).requires_grad_()
    for reduce in REDUCES:
        assert torch.autograd.gradcheck(
            lambda a, b, how=reduce: spmm(graph, a, b, how, backend="triton"), (x, w), fast_mode=True
        )


@pytest.mark.parametrize(
    ("width", "edges", "columns", "warps"), [(1, 32, 8, 1), (47, 16, 64, 1), (128, 16, 128, 2), (1000, 16, 256, 4)]
)
def test_tiles_follow_the_width(width: int, edges: int, columns: int, warps: int) -> None:
    blocks = row_blocks(width)
    assert (blocks.edges, blocks.width, blocks.num_warps) == (edges, columns, warps)
