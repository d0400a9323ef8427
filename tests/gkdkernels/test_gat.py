"""Attention aggregation against an oracle written from the formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate
from gkdkernels.core.dropout import keyed_mask
from support.structure_formulas import ON_CPU as BACKENDS
from torch import Tensor

Draw = Callable[..., Tensor]


def oracle(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None = None) -> Tensor:
    out = h.new_zeros(graph.num_dst, *h.shape[1:])
    for i, (start, stop) in enumerate(pairwise(graph.indptr.tolist())):
        for k in range(h.size(1)):
            sources = graph.index[start:stop].tolist()
            raw = [float(el[j, k] + er[i, k]) for j in sources]
            score = [s if s > 0 else slope * s for s in raw]
            total = sum(math.exp(s - max(score)) for s in score)
            for e, j, s in zip(range(start, stop), sources, score, strict=True):
                p = math.exp(s - max(score)) / total
                out[i, k] += (p if mask is None else p * float(mask[k, e])) * h[j, k]
    return out


def vectors(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor) -> Tensor:
    """`oracle` once more, row by row and differentiable."""
    out = []
    for i, (start, stop) in enumerate(pairwise(graph.indptr.tolist())):
        sources = graph.index[start:stop]
        raw = el[sources] + er[i]  # [edges, H]
        p = torch.where(raw > 0, raw, slope * raw).softmax(0) * mask[:, start:stop].t()
        out.append((p[:, :, None] * h[sources]).sum(0))
    return torch.stack(out)


def inputs(graph: CSRGraph, draw: Draw, heads: int = 2, width: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return draw(graph.num_src, heads, width), draw(graph.num_src, heads), draw(graph.num_dst, heads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_values(graph: CSRGraph, draw: Draw, backend: str, dropout: float) -> None:
    h, el, er = inputs(graph, draw)
    mask = keyed_mask(torch.Size((2, graph.num_edges)), dropout, 5, dtype=h.dtype, device=h.device)
    got = gat_aggregate(graph, h, el, er, negative_slope=0.2, dropout=dropout, key=5, backend=backend)
    torch.testing.assert_close(got, oracle(graph, h, el, er, 0.2, mask))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_paths_have_the_same_gradients(graph: CSRGraph, draw: Draw, dropout: float, dtype: torch.dtype) -> None:
    leaves = [t.to(dtype).requires_grad_() for t in inputs(graph, draw)]
    g = draw(graph.num_dst, 2, 3).to(dtype)
    grads = []
    for backend in BACKENDS:
        out = gat_aggregate(graph, *leaves, dropout=dropout, key=5, backend=backend)
        grads.append(torch.autograd.grad(out, leaves, g))
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    for wanted, *others in zip(*grads, strict=True):
        for got in others:
            torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradcheck(odd: CSRGraph, draw: Draw, backend: str, dropout: float) -> None:
    leaves = tuple(t.requires_grad_() for t in inputs(odd, draw))
    assert torch.autograd.gradcheck(
        lambda *t: gat_aggregate(odd, *t, dropout=dropout, key=9, backend=backend), leaves, fast_mode=True
    )


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_partial_gradients(odd: CSRGraph, draw: Draw, wanted: tuple[bool, bool, bool]) -> None:
    tensors = inputs(odd, draw)
    leaves = [t.requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
    leaf, g = leaves[wanted.index(True)], draw(63, 2, 3)
    first, *others = (
        torch.autograd.grad(gat_aggregate(odd, *leaves, dropout=0.3, key=1, backend=backend), leaf, g)[0]
        for backend in BACKENDS
    )
    for other in others:
        torch.testing.assert_close(other, first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e3, 1e30], ids=["wide", "huge"])
def test_extreme_scores_are_a_hard_choice(odd: CSRGraph, draw: Draw, backend: str, scale: float) -> None:
    h, el, er = (t.float() for t in inputs(odd, draw))
    got = gat_aggregate(odd, h, el * scale, er * scale, backend=backend)
    torch.testing.assert_close(got, oracle(odd, h, el * scale, er * scale, 0.2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_features_come_back(odd: CSRGraph, draw: Draw, backend: str) -> None:
    _, el, er = inputs(odd, draw)
    got = gat_aggregate(odd, torch.full((63, 2, 3), 1.5, dtype=torch.float64), el, er, backend=backend)
    wanted = torch.where(odd.degree > 0, 1.5, 0.0)[:, None, None].expand(63, 2, 3)
    torch.testing.assert_close(got, wanted.double())


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_are_bitwise_equal_and_leave_inputs_alone(odd: CSRGraph, draw: Draw, backend: str) -> None:
    tensors = [t.float() for t in inputs(odd, draw)]
    before, g = [t.clone() for t in tensors], draw(63, 2, 3).float()

    def run() -> tuple[Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = gat_aggregate(odd, *leaves, dropout=0.5, key=3, backend=backend)
        return (out, *torch.autograd.grad(out, leaves, g))

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
    gat_aggregate(odd, *tensors, dropout=0.5, key=3, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_depends_on_the_key_alone(odd: CSRGraph, draw: Draw, backend: str) -> None:
    tensors = inputs(odd, draw)

    def run(key: int) -> Tensor:
        return gat_aggregate(odd, *tensors, dropout=0.5, key=key, backend=backend)

    first, state = run(1), torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(first, run(1))
    torch.set_rng_state(state)
    run(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, run(2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision(odd: CSRGraph, draw: Draw, backend: str, dtype: torch.dtype) -> None:
    halves = [t.to(dtype).requires_grad_() for t in inputs(odd, draw)]
    doubles = [t.detach().double().requires_grad_() for t in halves]
    g = draw(63, 2, 3).to(dtype)
    got = gat_aggregate(odd, *halves, backend=backend)
    wanted = gat_aggregate(odd, *doubles, backend="reference")
    pairs = [(got, wanted)]
    grads = torch.autograd.grad(got, halves, g), torch.autograd.grad(wanted, doubles, g.double())
    for a, b in [*pairs, *zip(*grads, strict=True)]:
        assert a.dtype == dtype
        assert (a.double() - b).norm() / b.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (1, 47), (3, 7), (2, 0)], ids=str)
def test_odd_widths(draw: Draw, backend: str, dropout: float, heads: int, width: int) -> None:
    generator = torch.Generator().manual_seed(2)
    ends = torch.randint(0, 30, (2, 1000), generator=generator)
    ends[1, :500] = 7  # a row of more edges than one block has, and rows of less
    graph = CSRGraph.from_edge_index(ends, 30)
    shapes = (graph.num_src, 2 * heads, width), (graph.num_src, 2 * heads), (graph.num_dst, 2 * heads)
    leaves = [draw(*shape)[:, ::2].requires_grad_() for shape in shapes]  # not contiguous
    mask = keyed_mask(torch.Size((heads, 1000)), dropout, 5, dtype=torch.float64, device=leaves[0].device)
    g = draw(30, heads, width)
    results = []
    for own in (True, False):
        if own:
            out = gat_aggregate(graph, *leaves, dropout=dropout, key=5, backend=backend)
        else:
            out = vectors(graph, *leaves, 0.2, mask)
        results.append((out.detach(), *torch.autograd.grad(out, leaves, g)))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"h": torch.zeros(62, 2, 3)}, r"h: expected shape \[63, H, F\], got \(62, 2, 3\)"),
        ({"el": torch.zeros(63, 3)}, r"el: expected shape \[63, 2\], got \(63, 3\)"),
        ({"er": torch.zeros(63, 2).double()}, "er: expected torch.float32"),
        ({"negative_slope": 1.5}, r"negative_slope: expected a value in \[0, 1\], got 1.5"),
        ({"dropout": -0.1}, r"dropout: expected a probability in \[0, 1\], got -0.1"),
        ({"dropout": 0.1}, "key: expected a seed when dropout > 0"),
        ({"backend": "cuda"}, "expected one of auto, reference, cpu, triton, numba, got 'cuda'"),
    ],
)
def test_bad_input(odd: CSRGraph, change: dict[str, object], words: str) -> None:
    good = {"h": torch.zeros(63, 2, 3), "el": torch.zeros(63, 2), "er": torch.zeros(63, 2)}
    with pytest.raises(ValueError, match=words):
        gat_aggregate(odd, **{**good, **change})  # type: ignore[arg-type]
