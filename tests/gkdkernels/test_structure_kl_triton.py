"""The triton kernels of local structure, under the interpreter or on the GPU, against the formula in fp64."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from gkdkernels import CSRGraph
from gkdkernels.structure_kl.edge_log_probs import edge_log_probs
from gkdkernels.structure_kl.kernel_functions import KERNELS
from gkdkernels.structure_kl.op import structure_kl
from support.structure_formulas import SQUARE, divergence, mean_distance, oracle, slopes
from torch import Tensor

Draw = Callable[..., Tensor]
pytestmark = pytest.mark.usefixtures("poison")
PLACES = ["nothing", "no edges", "one loop", "first and last isolated", "loops and parallel edges", "unsorted"]


@pytest.fixture
def small_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of more than 4 edges count as hubs."""
    for module in ("graph", "structure_kl.triton"):  # the operator of that name hides its folder from a dotted path
        monkeypatch.setattr(import_module(f"gkdkernels.{module}"), "HUB_EDGES", 4)


def wheel(device: torch.device, symmetric: bool) -> CSRGraph:
    """Node 0 with 11 neighbours in a ring, one of them twice, a loop and a bare node; directed: a few edges less."""
    ring = [(i, i % 10 + 1) for i in range(1, 11)] + [(0, i) for i in range(1, 11)] + [(0, 3)]
    pairs = [*ring, *((b, a) for a, b in ring), (4, 4)]
    if not symmetric:
        del pairs[2:9]
    edge_index = torch.tensor(pairs).t()
    return CSRGraph.from_edge_index(edge_index, 12).to(device)


def result(graph: CSRGraph, x: Tensor, g: Tensor, kernel: str, sigma: float | str, backend: str) -> list[Tensor]:
    leaf = x.detach().requires_grad_()
    out = edge_log_probs(graph, leaf, kernel, sigma, backend=backend)  # type: ignore[arg-type]
    return [out.detach(), *torch.autograd.grad(out, leaf, g)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_log_probabilities(symmetric: bool, kernel: str, draw: Draw, device: torch.device) -> None:
    graph = wheel(device, symmetric)
    x, g = draw(12, 3).to(device), draw(graph.num_edges).to(device)
    out, grad = result(graph, x, g, kernel, 1.3, "triton")
    torch.testing.assert_close(out.cpu(), oracle(graph, x, kernel, 1.3))
    wanted = slopes(lambda moved: float(oracle(graph, moved, kernel, 1.3) @ g.cpu()), x.cpu())
    torch.testing.assert_close(grad.cpu(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_divergence(symmetric: bool, kernel: str, draw: Draw, device: torch.device) -> None:
    graph = wheel(device, symmetric)
    x, teacher = draw(12, 3).to(device), draw(12, 2).to(device)
    log_t = oracle(graph, teacher, kernel, 1.3)
    wanted = divergence(graph, log_t, oracle(graph, x, kernel, 1.3))
    slope = slopes(lambda moved: 2.5 * divergence(graph, log_t, oracle(graph, moved, kernel, 1.3)), x.cpu())
    for told in (teacher, log_t.to(device)):
        leaf = x.clone().requires_grad_()
        loss = structure_kl(graph, leaf, told, kernel=kernel, sigma=1.3, backend="triton")
        assert loss.item() == pytest.approx(wanted, rel=1e-10)
        grad = torch.autograd.grad(2.5 * loss, leaf)[0]
        torch.testing.assert_close(grad.cpu(), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PLACES)
def test_awkward_graphs(name: str, draw: Draw, device: torch.device) -> None:
    graph = SQUARE[name]().to(device)
    x, teacher = draw(graph.num_src, 3).to(device).requires_grad_(), draw(graph.num_src, 2).to(device)
    widths = [mean_distance(graph.to("cpu"), t.detach().cpu(), "laplace") for t in (x, teacher)]
    log_s, log_t = (oracle(graph, t.detach(), "laplace", w) for t, w in zip((x, teacher), widths, strict=True))
    loss = structure_kl(graph, x, teacher, kernel="laplace", sigma="auto", backend="triton")
    assert loss.item() == pytest.approx(divergence(graph, log_t, log_s), rel=1e-10, abs=1e-12)
    plain = structure_kl(graph, x, teacher, kernel="laplace", sigma="auto", backend="reference")
    a, b = (torch.autograd.grad(one, x)[0] for one in (loss, plain))
    torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("small_hubs")
@pytest.mark.parametrize("kernel", ["laplace", "cosine"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_hubs_are_cut(symmetric: bool, kernel: str, draw: Draw, device: torch.device) -> None:
    graph = wheel(device, symmetric)
    assert graph.hubs.chunk.numel() > 2
    x, teacher, g = draw(12, 3).to(device), draw(12, 2).to(device), draw(graph.num_edges).to(device)
    for a, b in zip(*(result(graph, x, g, kernel, "auto", name) for name in ("triton", "reference")), strict=True):
        torch.testing.assert_close(a, b)
    leaf = x.requires_grad_()
    losses = [
        structure_kl(graph, leaf, teacher, kernel=kernel, sigma="auto", backend=b) for b in ("triton", "reference")
    ]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, leaf)[0] for loss in losses))


@pytest.mark.parametrize("width", [1, 47])
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 2e-5), (torch.bfloat16, 2**-6), (torch.float16, 2**-9)],
    ids=["32", "b16", "16"],
)
def test_dtypes_and_widths(width: int, dtype: torch.dtype, bound: float, draw: Draw, device: torch.device) -> None:
    graph = wheel(device, True)
    graph = CSRGraph(graph.indptr.int(), graph.index.int(), 12)
    x, teacher = draw(width, 12).to(device, dtype).t(), draw(12, 5).to(device, dtype)
    results = []
    for name, kind in (("triton", dtype), ("reference", torch.float64)):
        leaf = x.detach().to(kind).requires_grad_()
        losses = structure_kl(graph, leaf, teacher.to(kind), kernel="laplace", sigma="auto", backend=name)
        results.append((losses.double(), torch.autograd.grad(losses, leaf)[0]))
    (a, grad), (b, wanted) = results
    assert grad.dtype == dtype
    assert a.item() == pytest.approx(b.item(), rel=1e-4)
    assert (grad.double() - wanted).norm() < bound * wanted.norm()


def test_two_runs_are_bitwise_equal(draw: Draw, device: torch.device) -> None:
    graph = wheel(device, True)
    x, g = draw(12, 9).float().to(device), draw(graph.num_edges).float().to(device)
    before = x.clone()
    runs = [result(graph, x, g, "laplace", "auto", "triton") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert torch.equal(x, before)


def test_nodes_with_one_edge_contribute_nothing(draw: Draw, device: torch.device) -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[1, 2, 3, 3], [2, 1, 3, 4]]), 6).to(device)
    x = draw(6, 4).float().to(device).requires_grad_()
    loss = structure_kl(graph, x, draw(6, 3).float().to(device), kernel="laplace", sigma="auto", backend="triton")
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, x)[0].any()


def test_zero_probability_of_the_teacher_counts_as_zero(draw: Draw, device: torch.device) -> None:
    graph = wheel(device, True)
    sure = torch.full((graph.num_edges,), -torch.inf, dtype=torch.float64, device=device)
    sure[graph.indptr[:-1][graph.degree > 0]] = 0.0
    x = draw(12, 3).to(device).requires_grad_()
    losses = [structure_kl(graph, x, sure, kernel="rbf", sigma=1.0, backend=b) for b in ("triton", "reference")]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in losses))


def test_fullgraph(draw: Draw, device: torch.device) -> None:
    graph = SQUARE["directed"]().to(device).prepare()
    x, teacher = draw(5, 2).to(device), draw(5, 3).to(device)

    def step(x: Tensor) -> Tensor:
        return structure_kl(graph, x, teacher, kernel="laplace", sigma="auto", backend="triton").square()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaf = x.clone().requires_grad_()
        loss = run(leaf)
        results.append((loss, *torch.autograd.grad(loss, leaf)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
