"""Local structure of nodes against an oracle written from the formula."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from gkdkernels import CSRGraph
from gkdkernels.structure_kl.edge_log_probs import edge_log_probs
from gkdkernels.structure_kl.edge_rows import reverse_edges, undirected_edges
from gkdkernels.structure_kl.kernel_functions import KERNELS, SCALED
from support import structure_formulas as structures
from support.structure_formulas import ON_CPU, SQUARE, both_ways, mean_distance, oracle
from torch import Tensor

Draw = Callable[..., Tensor]
BOUND = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SQUARE)
def test_values(name: str, kernel: str, backend: str, draw: Draw) -> None:
    graph = SQUARE[name]()
    for sigma in (1.7, "auto") if kernel in SCALED else (1.7,):
        x = draw(graph.num_src, 7)
        width = mean_distance(graph, x, kernel) if sigma == "auto" else 1.7
        for dtype, bound in BOUND.items():
            got = edge_log_probs(graph, x.to(dtype), kernel, sigma, backend=backend)  # type: ignore[arg-type]
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), oracle(graph, x, kernel, width), rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["loops and parallel edges", "directed", "symmetric", "unsorted"])
def test_gradient_by_differences(name: str, kernel: str, backend: str, draw: Draw) -> None:
    graph = SQUARE[name]()
    x, g = draw(graph.num_src, 2), draw(graph.num_edges)
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(edge_log_probs(graph, leaf, kernel, 1.3, backend=backend), leaf, g)
    wanted = structures.slopes(lambda moved: float(oracle(graph, moved, kernel, 1.3) @ g), x)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_paths_have_the_same_gradients(symmetric: bool, kernel: str, backend: str, draw: Draw) -> None:
    graph = both_ways(63, 200) if symmetric else SQUARE["directed"]()
    for dtype, bound in BOUND.items():
        x, g = draw(graph.num_src, 47).to(dtype).requires_grad_(), draw(graph.num_edges).to(dtype)
        a, b = (
            torch.autograd.grad(edge_log_probs(graph, x, kernel, "auto", backend=name), x, g)[0]
            for name in ("reference", backend)
        )
        torch.testing.assert_close(a, b, rtol=10 * bound, atol=bound)


def test_gradcheck_of_every_order(draw: Draw) -> None:
    graph, x = SQUARE["symmetric"](), draw(17, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: edge_log_probs(graph, x, "rbf", 1.0), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda x: edge_log_probs(graph, x, "rbf", 1.0, backend="reference"), x, fast_mode=True
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", [3, 64, 192])
def test_distances_taken_once_for_both_directions_are_the_same_to_the_bit(
    kernel: str, width: int, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = both_ways(63, 200)
    reverse_edges(graph)  # finds out that the graph is its own transpose
    assert len(undirected_edges(graph)) == 2
    x, g = draw(63, width).float().requires_grad_(), draw(graph.num_edges).float()
    once = edge_log_probs(graph, x, kernel, "auto", backend="cpu")
    monkeypatch.setattr(import_module("gkdkernels.structure_kl.edge_log_probs"), "undirected_edges", lambda _: [])
    twice = edge_log_probs(graph, x, kernel, "auto", backend="cpu")
    assert torch.equal(once, twice)
    assert torch.equal(*(torch.autograd.grad(each, x, g)[0] for each in (once, twice)))


def test_only_graphs_that_are_their_own_transpose_have_halves() -> None:
    loops = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 2, 1], [1, 0, 2, 1, 2]]), 3, True)
    ends, place = undirected_edges(loops)
    assert ends.view(-1, 2).tolist() == [[0, 1], [1, 2], [2, 2]]
    pairs = [sorted(pair) for pair in zip(loops.row.tolist(), loops.index.tolist(), strict=True)]
    assert [ends.view(-1, 2).tolist()[at] for at in place.tolist()] == pairs
    unsaid = CSRGraph(loops.indptr, loops.index, 3)
    assert undirected_edges(unsaid) == []
    reverse_edges(unsaid)  # found out when a gradient was asked for
    assert len(undirected_edges(unsaid)) == 2
    assert undirected_edges(SQUARE["directed"]()) == []


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_cut_rows(kernel: str, backend: str, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = both_ways(9, 150)  # rows of some 33 edges, chunks of 5
    x, g = draw(9, 4).requires_grad_(), draw(300)
    whole = torch.autograd.grad(edge_log_probs(graph, x, kernel, 1.0, backend=backend), x, g)[0]
    monkeypatch.setattr(import_module("gkdkernels.structure_kl.cpu"), "_CHUNK_ELEMENTS", 20)
    out = edge_log_probs(graph, x, kernel, 1.0, backend=backend)
    torch.testing.assert_close(out, oracle(graph, x.detach(), kernel, 1.0))
    torch.testing.assert_close(torch.autograd.grad(out, x, g)[0], whole)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_that_underflow_are_uniform(kernel: str, backend: str) -> None:
    graph = SQUARE["symmetric"]()
    x = (torch.eye(17) * 1e4).requires_grad_()  # all nodes equally far apart
    if kernel in ("laplace-exp", "rbf-exp"):
        x = (x.detach() * torch.arange(1, 18)[:, None]).requires_grad_()  # any distances: exp of them is 0
    no_loops = graph.index != graph.row
    keep = torch.bincount(graph.row[~no_loops], minlength=17) == 0
    got = edge_log_probs(graph, x, kernel, 1.0, backend=backend)
    wanted = -graph.degree[graph.row].log()
    rows = keep[graph.row]
    torch.testing.assert_close(got[rows], wanted[rows])
    assert torch.autograd.grad(got.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_far_and_equal_neighbours(kernel: str, backend: str) -> None:
    """A large common offset changes no difference; coincident and zero rows have finite gradients."""
    graph = SQUARE["symmetric"]()
    x = torch.zeros(17, 4).requires_grad_()
    got = edge_log_probs(graph, x, kernel, "auto", backend=backend)
    torch.testing.assert_close(got, -graph.degree[graph.row].log())
    assert not torch.autograd.grad(got, x, torch.ones_like(got))[0].any()


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", ["l2", "rbf", "laplace"])
def test_a_common_offset_costs_no_digits(kernel: str, backend: str, draw: Draw) -> None:
    graph = both_ways(63, 200)
    near = (draw(63, 16).float() + 300.0).requires_grad_()  # rounded once, here
    exact = near.detach().double().requires_grad_()
    g = draw(graph.num_edges)
    grads = []
    for x, name in ((near, backend), (exact, "reference")):
        out = edge_log_probs(graph, x, kernel, 2.0, backend=name)
        grads.append(torch.autograd.grad(out, x, g.to(x.dtype))[0].double())
    assert (grads[0] - grads[1]).norm() / grads[1].norm() < 2e-5


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, backend: str, draw: Draw) -> None:
    graph, g = both_ways(63, 200), draw(400)
    half = draw(63, 33).mul(0.2).to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    for kernel in KERNELS:
        got = edge_log_probs(graph, half, kernel, "auto", backend=backend)
        wanted = edge_log_probs(graph, exact, kernel, "auto", backend="reference")
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
        (a,), (b,) = torch.autograd.grad(got, half, g.float()), torch.autograd.grad(wanted, exact, g)
        assert a.dtype == dtype
        assert (a.double() - b).norm() / b.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("kernel", KERNELS)
def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(kernel: str, backend: str, draw: Draw) -> None:
    graph = both_ways(63, 200)
    x, g = draw(47, 63).float().t(), draw(400).float()  # not contiguous
    before = x.clone()

    def run() -> tuple[Tensor, ...]:
        leaf = x.detach().requires_grad_()
        out = edge_log_probs(graph, leaf, kernel, "auto", backend=backend)
        return out, *torch.autograd.grad(out, leaf, g)

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
    assert torch.equal(x, before)


@pytest.mark.parametrize("backend", ON_CPU)
def test_nodes_may_be_renamed(backend: str, draw: Draw) -> None:
    graph, x = both_ways(63, 200), draw(63, 5)
    name = torch.randperm(63, generator=torch.Generator().manual_seed(1))  # node i becomes name[i]
    renamed = CSRGraph.from_edge_index(torch.stack((name[graph.index], name[graph.row])), 63)
    moved = torch.empty_like(x)
    moved[name] = x
    a = edge_log_probs(graph, x, "laplace", "auto", backend=backend)
    b = edge_log_probs(renamed, moved, "laplace", "auto", backend=backend)
    order = torch.argsort(name[graph.row] * 63 + name[graph.index], stable=True)
    torch.testing.assert_close(a[order], b)


@pytest.mark.parametrize("width", [0, 1])
@pytest.mark.parametrize("backend", ON_CPU)
def test_narrow_features(width: int, backend: str, draw: Draw) -> None:
    graph, x = SQUARE["symmetric"](), draw(17, width).requires_grad_()
    got = edge_log_probs(graph, x, "laplace", "auto", backend=backend)
    torch.testing.assert_close(got, oracle(graph, x.detach(), "laplace", mean_distance(graph, x.detach(), "laplace")))
    assert torch.autograd.grad(got.sum(), x)[0].shape == (17, width)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": "gauss"}, "kernel: expected one of laplace-exp, laplace, rbf, .*, got 'gauss'"),
        ({"sigma": 0.0}, "sigma: expected a positive number or 'auto', got 0.0"),
        ({"sigma": "mean"}, "sigma: expected a positive number or 'auto', got 'mean'"),
        ({"x": torch.zeros(16, 2)}, r"x: expected shape \[17, F\], got \(16, 2\)"),
        ({"x": torch.zeros(17)}, r"x: expected shape \[17, F\], got \(17,\)"),
        ({"x": torch.zeros(17, 2, dtype=torch.int64)}, "x: expected a float dtype, got torch.int64"),
        ({"x": torch.zeros(17, 2, device="meta")}, "x: expected the graph's device cpu, got meta"),
        (
            {"backend": "cuda"},
            "backend of edge_log_probs: expected one of auto, reference, cpu, triton, numba, got 'cuda'",
        ),
        (
            {"graph": CSRGraph(torch.tensor([0, 1]), torch.tensor([2]), 3)},
            "graph: expected as many rows as columns, got 1 x 3",
        ),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    good = {"graph": SQUARE["symmetric"](), "x": torch.zeros(17, 2), "kernel": "laplace", "sigma": 1.0}
    with pytest.raises(ValueError, match=words):
        edge_log_probs(**{**good, **change})  # type: ignore[arg-type]
