"""Dot products and softmaxes per edge, and attention's coefficients: values and gradients against loops."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gkdkernels import CSRGraph, edge_dot, edge_softmax, gat_aggregate, gat_attention
from torch import Tensor

BACKENDS = ("reference", "cpu", "triton")
Draw = Callable[..., Tensor]


def dots(graph: CSRGraph, y: Tensor, x: Tensor) -> Tensor:
    ends = zip(graph.row.tolist(), graph.index.tolist(), strict=True)
    return torch.stack([0 * (y.sum() + x.sum()), *((y[i] * x[j]).sum() for i, j in ends)])[1:]


def softmaxes(graph: CSRGraph, score: Tensor) -> Tensor:
    at = graph.indptr.tolist()
    return torch.cat([score[:0], *(score[a:b].softmax(0) for a, b in pairwise(at))])


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(backend: str, device: torch.device) -> torch.device:
    """Where a backend runs."""
    return device if backend == "triton" else torch.device("cpu")


def agrees(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor, seed: int = 3) -> None:
    leaves = [[tensor.clone().requires_grad_() for tensor in inputs] for _ in range(2)]
    got, wanted = ours(*leaves[0]), theirs(*leaves[1])
    torch.testing.assert_close(got, wanted)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(seed), dtype=got.dtype).to(got.device)
    for one in (got, wanted):
        one.backward(upstream)
    zero = [torch.zeros_like(tensor) for tensor in inputs]
    grads = [[z if t.grad is None else t.grad for t, z in zip(side, zero, strict=True)] for side in leaves]
    torch.testing.assert_close(*grads)


def test_dot_values_and_gradients(small_graph: CSRGraph, backend: str, place: torch.device, draw: Draw) -> None:
    graph = small_graph.to(place)
    y, x = draw(graph.num_dst, 5).to(place), draw(graph.num_src, 5).to(place)
    agrees(lambda y, x: edge_dot(graph, y, x, backend=backend), lambda y, x: dots(graph, y, x), y, x)


def test_softmax_values_and_gradients(small_graph: CSRGraph, backend: str, place: torch.device, draw: Draw) -> None:
    graph = small_graph.to(place)

    def ours(score: Tensor) -> Tensor:
        return edge_softmax(graph, score, backend=backend)

    agrees(ours, lambda score: softmaxes(graph, score), draw(graph.num_edges, 3).to(place))
    agrees(ours, lambda score: softmaxes(graph, score), draw(graph.num_edges).to(place))


def test_softmax_of_strided_half_precision_is_summed_in_full(
    odd: CSRGraph, backend: str, place: torch.device, draw: Draw
) -> None:
    odd, score = odd.to(place), draw(3, odd.num_edges).to(place, torch.bfloat16).t()
    got = edge_softmax(odd, score, backend=backend)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, softmaxes(odd, score.float()).to(torch.bfloat16))


def test_softmax_of_large_and_impossible_scores(backend: str, place: torch.device) -> None:
    graph = CSRGraph(torch.tensor([0, 3]), torch.zeros(3, dtype=torch.int64), 1).to(place)
    got = edge_softmax(graph, torch.tensor([1e4, 1e4, -torch.inf], device=place), backend=backend)
    assert got.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("chosen", ["cpu"])
def test_a_second_derivative_is_refused_or_right(odd: CSRGraph, chosen: str, draw: Draw) -> None:
    x = draw(63, 4).requires_grad_()
    score = draw(odd.num_edges, 2).requires_grad_()
    for run, leaf in (
        (lambda b: edge_dot(odd, x, x, backend=b), x),
        (lambda b: edge_softmax(odd, score, backend=b).square(), score),
    ):
        (grad,) = torch.autograd.grad(run(chosen).sum(), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match="one derivative"):
            grad.square().sum().backward()
        (grad,) = torch.autograd.grad(run("reference").sum(), leaf, create_graph=True)
        grad.square().sum().backward()


def test_compiled_equals_eager(odd: CSRGraph, draw: Draw) -> None:
    odd.prepare()

    def step(y: Tensor, x: Tensor) -> Tensor:
        return edge_softmax(odd, edge_dot(odd, y, x)).square()

    y, x = draw(63, 4), draw(63, 4)
    agrees(torch.compile(step, backend="aot_eager", fullgraph=True), step, y, x)


def test_attention_is_what_gat_aggregate_weighs_with(odd: CSRGraph, draw: Draw) -> None:
    el, er, h = draw(63, 2), draw(63, 2), draw(63, 2, 4)

    def by_hand(h: Tensor, el: Tensor, er: Tensor) -> Tensor:
        weighed = gat_attention(odd, el, er, 0.1)[:, :, None] * h[odd.index]
        return h.new_zeros(63, 2, 4).index_add(0, odd.row, weighed)

    agrees(lambda h, el, er: gat_aggregate(odd, h, el, er, negative_slope=0.1), by_hand, h, el, er)


def test_autocast_takes_mixed_dtypes(odd: CSRGraph) -> None:
    y, x = torch.ones(63, 2), torch.ones(63, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert edge_dot(odd, y, x).dtype == torch.float32
        assert gat_attention(odd, y, x).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: edge_dot(g, torch.ones(2, 3), torch.ones(63, 3)), r"y: expected shape \[63, D\], got \(2, 3\)"),
        (lambda g: edge_dot(g, torch.ones(63, 3), torch.ones(63, 3).double()), "y: expected one float dtype"),
        (lambda g: edge_dot(g, torch.ones(63, 3), torch.ones(63, 3), backend="numba"), "backend of edge_dot"),
        (lambda g: edge_softmax(g, torch.ones(5)), r"score: expected floats of shape \[257\] or \[257, H\]"),
        (lambda g: edge_softmax(g, torch.ones(257, dtype=torch.int64)), "score: expected floats"),
        (lambda g: gat_attention(g, torch.ones(63, 2), torch.ones(63, 3)), r"er: expected shape \[63, H\]"),
        (lambda g: gat_attention(g, torch.ones(63, 2), torch.ones(63, 2), 2.0), "negative_slope: expected"),
    ],
)
def test_bad_input(odd: CSRGraph, call: Callable[[CSRGraph], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(odd)
