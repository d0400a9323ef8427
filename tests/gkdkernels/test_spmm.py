"""Sparse aggregation against an oracle written from the formula, edge by edge."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from gkdkernels import CSRGraph, gcn_norm, gcn_weight, spmm
from gkdkernels.spmm.cpu import edge_dot
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[..., Tensor]
PATHS = [
    ("sum", "reference"),
    ("sum", "cpu"),
    ("mean", "reference"),
    ("mean", "cpu"),
    ("max", "reference"),
    ("max", "cpu"),
]
NUMBA = ["numba"] * (find_spec("numba") is not None)
PATHS += [("max", backend) for backend in NUMBA]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def oracle(graph: CSRGraph, x: Tensor, w: Tensor, g: Tensor, reduce: str) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient of x and gradient of w for an upstream g, in fp64."""
    y, dx, dw = torch.zeros_like(g), torch.zeros_like(x), torch.zeros_like(w)
    for i, (start, stop) in enumerate(pairwise(graph.indptr.tolist())):
        edges = range(start, stop)
        for d in range(x.size(1)):
            messages = [float(w[e] * x[graph.index[e], d]) for e in edges]
            if reduce == "max":
                share = [float(k == messages.index(max(messages))) for k in range(len(messages))]
            else:
                share = [1.0 if reduce == "sum" else 1.0 / max(1, len(messages))] * len(messages)
            for e, message, part in zip(edges, messages, share, strict=True):
                j = graph.index[e]
                y[i, d] += part * message
                dx[j, d] += part * w[e] * g[i, d]
                dw[e] += part * x[j, d] * g[i, d]
    return y, dx, dw


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_values_and_gradients(graph: CSRGraph, draw: Draw, reduce: str, backend: str, dtype: torch.dtype) -> None:
    x, w, g = draw(graph.num_src, 3), draw(graph.num_edges), draw(graph.num_dst, 3)
    wanted = oracle(graph, x, w, g, reduce)
    a, b = x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_()
    y = spmm(graph, a, b, reduce, backend=backend)
    got = (y, *torch.autograd.grad(y, (a, b), g.to(dtype)))
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_no_weight_is_a_weight_of_one(graph: CSRGraph, draw: Draw, reduce: str, backend: str) -> None:
    x = draw(graph.num_src, 4)
    ones = torch.ones(graph.num_edges, dtype=x.dtype)
    torch.testing.assert_close(spmm(graph, x, None, reduce, backend=backend), spmm(graph, x, ones, reduce))


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_stacked_inputs_are_separate_calls(graph: CSRGraph, draw: Draw, reduce: str, backend: str) -> None:
    x = draw(2, graph.num_src, 3).requires_grad_()
    w, g = draw(graph.num_edges).requires_grad_(), draw(2, graph.num_dst, 3)
    y = spmm(graph, x, w, reduce, backend=backend)
    alone = torch.stack([spmm(graph, x[k], w, reduce, backend=backend) for k in range(2)])
    assert torch.equal(y, alone)
    for a, b in zip(torch.autograd.grad(y, (x, w), g), torch.autograd.grad(alone, (x, w), g), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_gradcheck(odd: CSRGraph, draw: Draw, reduce: str, backend: str) -> None:
    x, w = draw(63, 2).requires_grad_(), draw(257).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: spmm(odd, a, b, reduce, backend=backend), (x, w), fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_adjoint(graph: CSRGraph, draw: Draw, backend: str) -> None:
    x, g, w = draw(graph.num_src, 5), draw(graph.num_dst, 5), draw(graph.num_edges)
    transposed = graph.transposed
    there = (spmm(graph, x, w, backend=backend) * g).sum()
    back = (spmm(transposed.graph, g, w[transposed.edge], backend=backend) * x).sum()
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(
    odd: CSRGraph, draw: Draw, reduce: str, backend: str
) -> None:
    x, w, g = draw(63, 33).float(), draw(257).float(), draw(63, 33).float()
    before = [t.clone() for t in (x, w, g, odd.indptr, odd.index)]

    def run() -> tuple[Tensor, ...]:
        leaves = (x.clone().requires_grad_(), w.clone().requires_grad_())
        y = spmm(odd, *leaves, reduce, backend=backend)
        return (y, *torch.autograd.grad(y, leaves, g))

    first = run()
    spmm(odd, x, w, reduce, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip((x, w, g, odd.indptr, odd.index), before, strict=True))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_strided_input_and_zero_width(odd: CSRGraph, draw: Draw, backend: str) -> None:
    x, w = draw(6, 63).t()[:, ::2], draw(514)[::2]
    torch.testing.assert_close(
        spmm(odd, x, w, backend=backend), spmm(odd, x.contiguous(), w.contiguous(), backend="reference")
    )
    assert spmm(odd, draw(63, 0), w, backend=backend).shape == (63, 0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("integer", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_accumulates_in_single(backend: str, dtype: torch.dtype, integer: torch.dtype) -> None:
    hub = CSRGraph(torch.tensor([0, 4096], dtype=integer), torch.arange(4096, dtype=integer), 4096)
    got = spmm(hub, torch.ones(4096, 2, dtype=dtype), torch.ones(4096, dtype=dtype), backend=backend)
    assert got.dtype == dtype
    assert got.tolist() == [[4096.0, 4096.0]]  # a bf16 accumulator stops at 256


@pytest.mark.parametrize("backend", ["reference", "cpu", *NUMBA])
def test_max_gives_a_tie_to_the_lowest_edge(backend: str) -> None:
    graph = CSRGraph(torch.tensor([0, 3]), torch.tensor([2, 0, 1]), 3)
    x = torch.tensor([[5.0], [1.0], [5.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(spmm(graph, x, reduce="max", backend=backend).sum(), x)
    assert grad.flatten().tolist() == [0.0, 0.0, 1.0]


def test_max_gives_a_tie_of_minus_infinities_to_the_lowest_edge() -> None:
    graph = CSRGraph(torch.tensor([0, 0, 2]), torch.tensor([1, 0]), 2)
    for backend in ("reference", "cpu", *NUMBA):
        x = torch.full((2, 1), -torch.inf, requires_grad=True)
        y = spmm(graph, x, reduce="max", backend=backend)
        assert y.flatten().tolist() == [0.0, -torch.inf]
        assert torch.autograd.grad(y, x, torch.ones_like(y))[0].flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_max_paths_are_bitwise_equal(odd: CSRGraph, draw: Draw, weighted: bool) -> None:
    """Published results were made with the reference."""
    x, g = draw(63, 5).float().requires_grad_(), draw(63, 5).float()
    w = draw(257).float().requires_grad_() if weighted else None
    leaves = [t for t in (x, w) if t is not None]
    results = []
    for backend in ("reference", "cpu", *NUMBA):
        y = spmm(odd, x, w, "max", backend=backend)
        results.append((y, *torch.autograd.grad(y, leaves, g)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0][:2], other[:2], strict=True))
    for other in results[2:]:  # the reference adds up the weight's gradient in another order
        assert torch.equal(results[1][-1], other[-1])


@pytest.mark.skipif(not NUMBA, reason="the extra numba is not installed")
def test_threads_do_not_change_a_bit_of_the_maximum(odd: CSRGraph, draw: Draw) -> None:
    x, w, g = draw(63, 37).float().requires_grad_(), draw(257).float().requires_grad_(), draw(63, 37).float()
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = spmm(odd, x, w, "max", backend="numba")
            runs.append((y, *torch.autograd.grad(y, (x, w), g)))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.skipif(not NUMBA, reason="the extra numba is not installed")
def test_auto_takes_the_compiled_maximum_where_it_pays(
    odd: CSRGraph, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(
        import_module("gkdkernels.spmm.numba"), "max_rows", lambda *given: taken.append("numba") or cpu(*given)
    )
    cpu = sys.modules["gkdkernels.spmm.cpu"].max_rows
    operator = sys.modules["gkdkernels.spmm.op"]
    x = draw(63, 8).float()
    spmm(odd, x, reduce="max")
    assert taken == []
    monkeypatch.setattr(operator, "_WORTH", 257 * 8)
    spmm(odd, x.bfloat16(), reduce="max")  # halves are rounded elsewhere
    spmm(odd, x[:, :7], reduce="max")
    spmm(odd, x, reduce="sum")
    assert taken == []
    spmm(odd, x, reduce="max")
    spmm(odd, x[:, :4].expand(2, 63, 4), reduce="max")
    assert taken == ["numba", "numba"]


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_nan_stays_visible(odd: CSRGraph, draw: Draw, reduce: str, backend: str) -> None:
    x = draw(63, 2)
    x[odd.index[0]] = torch.nan
    assert spmm(odd, x, None, reduce, backend=backend)[odd.row[0]].isnan().all()


@settings(max_examples=30, deadline=None)
@given(
    degrees=st.lists(st.integers(0, 9), min_size=0, max_size=12),
    num_src=st.integers(1, 9),
    width=st.integers(0, 9),
    seed=st.integers(0, 1000),
)
def test_paths_agree_on_ragged_graphs(degrees: list[int], num_src: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    indptr = torch.tensor([0, *degrees]).cumsum(0)
    graph = CSRGraph(indptr, torch.randint(0, num_src, (sum(degrees),), generator=generator), num_src)
    x = torch.randn(num_src, width, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(sum(degrees), generator=generator, dtype=torch.float64, requires_grad=True)
    g = torch.randn(len(degrees), width, generator=generator, dtype=torch.float64)
    for reduce in ("sum", "mean", "max"):
        results = []
        for backend in ("reference", "cpu", *(NUMBA if reduce == "max" else ())):
            y = spmm(graph, x, w, reduce, backend=backend)
            results.append((y, *torch.autograd.grad(y, (x, w), g)))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                torch.testing.assert_close(a, b)


def test_edge_dot_in_chunks_equals_one_chunk(odd: CSRGraph, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = draw(63, 5), draw(63, 5)
    whole = edge_dot(odd, x, g)
    monkeypatch.setattr(sys.modules["gkdkernels.spmm.cpu"], "_CHUNK_ELEMENTS", 35)
    assert torch.equal(edge_dot(odd, x, g), whole)


def test_kept_transposed_weight_follows_changes(odd: CSRGraph, draw: Draw) -> None:
    x, g, w = draw(63, 2).requires_grad_(), draw(63, 2), draw(257)

    def gradients(backend: str) -> Tensor:
        return torch.autograd.grad(spmm(odd, x, w, backend=backend), x, g)[0]

    for change in (lambda: None, lambda: w.mul_(2), lambda: w.copy_(draw(257))):
        change()
        torch.testing.assert_close(gradients("cpu"), gradients("reference"))
        torch.testing.assert_close(gradients("cpu"), gradients("reference"))  # from what the first call kept
    other = w.float()
    grad = torch.autograd.grad(spmm(odd, x.float(), other), x, g.float())[0]
    torch.testing.assert_close(grad, gradients("reference"), rtol=1e-5, atol=1e-5)


def test_gcn_weight_is_the_symmetric_normalisation(graph: CSRGraph) -> None:
    adjacency = torch.zeros(graph.num_dst, graph.num_src, dtype=torch.float64)
    adjacency.index_put_(
        (graph.row.long(), graph.index.long()), torch.ones(graph.num_edges, dtype=torch.float64), accumulate=True
    )
    left, right = (adjacency.sum(axis).clamp(min=1).rsqrt() for axis in (1, 0))
    eye = torch.eye(graph.num_src, dtype=torch.float64)
    weight = gcn_weight(graph, torch.float64)
    torch.testing.assert_close(spmm(graph, eye, weight), left[:, None] * adjacency * right)
    assert gcn_weight(graph, torch.float64) is weight
    assert gcn_weight(graph).dtype == torch.float32


@pytest.mark.parametrize(("reduce", "backend"), PATHS)
def test_gcn_norm_is_gcn_weight(odd: CSRGraph, draw: Draw, reduce: str, backend: str) -> None:
    x, norm = draw(2, 63, 3), gcn_norm(odd)
    got = spmm(odd, x, norm, reduce, backend=backend)
    assert torch.equal(got, spmm(odd, x, gcn_weight(odd, torch.float64), reduce, backend=backend))
    assert gcn_norm(odd) is norm


def test_gcn_norm_of_another_graph(odd: CSRGraph) -> None:
    twin = CSRGraph(odd.indptr, odd.index, 63)
    with pytest.raises(ValueError, match="weight: expected the norm of this graph, got that of CSRGraph"):
        spmm(odd, torch.zeros(63, 2), gcn_norm(twin))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(5)}, r"x: expected shape \[63, D\]"),
        ({"x": torch.zeros(62, 2)}, r"x: expected shape \[63, D\]"),
        ({"x": torch.zeros(63, 2, dtype=torch.int64)}, "x: expected a float dtype, got torch.int64"),
        ({"weight": torch.zeros(256)}, r"weight: expected shape \[257\], got \(256,\)"),
        ({"weight": torch.zeros(257, dtype=torch.float64)}, "weight: expected torch.float32"),
        ({"reduce": "median"}, "reduce: expected one of sum, mean, max, got 'median'"),
        ({"backend": "cuda"}, "expected one of auto, reference, cpu, triton, torch_scatter, got 'cuda'"),
        (
            {"backend": "numba"},
            "backend of spmm: expected one of auto, reference, cpu, triton, torch_scatter, got 'numba'",
        ),
        ({"x": torch.zeros(63, 2, device="meta")}, "x: expected the graph's device cpu, got meta"),
    ],
)
def test_bad_input(odd: CSRGraph, change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spmm(odd, **{"x": torch.zeros(63, 2), **change})  # type: ignore[arg-type]
