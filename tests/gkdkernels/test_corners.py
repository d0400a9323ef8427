"""Corners of readouts, routing, experts and structures: strides, halves, twins, zero sizes, NaN, autocast."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product

import gkdkernels
import pytest
import torch
from gkdkernels import (
    CSRGraph,
    Logits,
    SparseFeatures,
    edge_log_probs,
    expert_linear,
    fold_experts,
    mutual_kl,
    rbm_layer,
    route_by_memory,
    segment_mean,
    segment_softmax,
    segment_sum,
    soft_kl,
    structure_kl,
)
from gkdkernels.experts.routing import first_of_equals
from torch import Tensor

NUMBA = ["numba"] * (find_spec("numba") is not None)
EDGES, HALVES = ["reference", "cpu", "triton", *NUMBA], [torch.bfloat16, torch.float16]
READOUTS = ["segment_sum", "segment_mean", "segment_max", "segment_softmax"]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "backend"), list(product(READOUTS, ["reference", "triton"])))
def test_strided_bounds_rows_and_upstream(name: str, backend: str) -> None:
    bounds = torch.tensor([[0, 3], [2, 3], [2, 4], [6, 3]])[:, 0]
    readout, wide = getattr(gkdkernels, name), draw(6, 8, seed=1)
    strided, plain = wide[:, ::2].requires_grad_(), wide[:, ::2].contiguous().requires_grad_()
    grads = []
    for x, ptr in ((strided, bounds), (plain, bounds.contiguous())):
        y = readout(x, ptr, backend=backend)
        grads += [y.detach(), torch.autograd.grad(y, x, draw(1, 1, seed=2).expand(y.shape))[0]]
    assert torch.equal(grads[0], grads[2]) and torch.equal(grads[1], grads[3])


@pytest.mark.parametrize(("dtype", "backend"), list(product(HALVES, ["reference", "triton"])))
def test_halves_are_summed_and_divided_in_single_precision(dtype: torch.dtype, backend: str) -> None:
    ptr = torch.tensor([0, 3000, 3001])
    x = torch.full((3001, 1), 30.0, dtype=dtype)  # in fp16 the sum does not fit, in bf16 it stops growing at 8192
    assert segment_mean(x, ptr, backend=backend).flatten().tolist() == [30, 30]
    ones = segment_sum(torch.ones(3001, 1, dtype=dtype), ptr, backend=backend)
    assert 2992 <= float(ones[0]) <= 3008  # the two bf16 numbers next to it
    p = segment_softmax(torch.zeros(3001, 1, dtype=dtype), ptr, backend=backend)
    assert abs(float(p[0]) * 3000 - 1) < 2**-7 and p[-1] == 1  # the interpreter cuts bf16 off instead of rounding it


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_segment_that_begins_with_many_impossible_rows(backend: str) -> None:
    x = torch.full((200, 1), -torch.inf)
    x[-2:, 0] = torch.tensor([0.0, 1.0])
    p = segment_softmax(x, torch.tensor([0, 200]), backend=backend).flatten()
    torch.testing.assert_close(p[-2:], torch.tensor([0.0, 1.0]).softmax(0))
    assert not p[:-2].any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("rows", [7, 130])
def test_twins_among_the_memory_go_to_the_lowest(rows: int, backend: str) -> None:
    for seed in range(20):
        memory = draw(5, 40, seed=seed)
        memory[4], memory[3] = memory[1], 2 * memory[0]  # the last is a twin in direction only, for fp32
        index = route_by_memory(draw(rows, 40, seed=seed + 100), memory, 5, backend=backend)[0]
        place = index.argsort(1)
        assert bool((place[:, 1] < place[:, 4]).all())
        folded = fold_experts(torch.eye(5)[:, None].expand(5, 40, 5), None, memory)
        for k in range(1, 5):
            one = rbm_layer(draw(1, 40, seed=seed), folded, k, relu=False, backend="cpu")[0]
            assert one[4] == 0 or one[1] != 0


def test_only_equal_rows_are_twins() -> None:
    assert first_of_equals(draw(9, 6, seed=1)) is None
    memory = draw(6, 4, seed=1)
    memory[3], memory[5], memory[0], memory[1] = memory[2], memory[2], torch.zeros(4), -torch.zeros(4)
    for dtype in (torch.float64, torch.float32, *HALVES):
        first = first_of_equals(memory.to(dtype))
        assert first is not None and first.tolist() == [0, 0, 2, 2, 4, 2]
    memory[2:] = torch.nan
    first = first_of_equals(memory)
    assert first is not None and first.tolist() == [0, 0, 2, 3, 4, 5]


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_experts_without_outputs_and_classes_that_are_none(backend: str) -> None:
    index, alpha = torch.zeros(4, 1, dtype=torch.long), torch.rand(4, 1)
    for x in (torch.eye(4), SparseFeatures.from_dense(torch.eye(4))):
        assert expert_linear(x, torch.rand(3, 4, 0), None, index, alpha, backend=backend).shape == (4, 0)
    junk = torch.full((64, 4, 4), 7.0)
    del junk
    weight = torch.rand(64, 4, requires_grad=True)
    loss, kl = mutual_kl(torch.zeros(4, 64, 0), pair_weight=weight, backend=backend)
    assert not torch.autograd.grad(loss.sum(), weight)[0].any() and not kl.any()


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_nan_stays_with_its_rows_and_experts(backend: str) -> None:
    index, alpha = torch.tensor([[0], [1], [2], [1]]).repeat(8, 1), torch.ones(32, 1)
    weight, x, g = draw(3, 4, 5, seed=1), draw(32, 4, seed=2), torch.ones(32, 5)
    weight[2], x[1] = torch.nan, torch.nan
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    y = expert_linear(x, weight, None, index, alpha, backend=backend)
    dx, dweight = torch.autograd.grad(y, leaves, g)
    told = torch.arange(32) % 4 == 2
    assert bool(dx[told].isnan().all()) and bool(dx[~told].isfinite().all())
    told[1] = True
    assert bool(y[told].isnan().all()) and bool(y[~told].isfinite().all())
    assert dweight.isnan().flatten(1).all(1).tolist() == [False, True, False]


def clusters(distance: float, nodes: int = 20, edges: int = 700) -> tuple[CSRGraph, Tensor]:
    """Five clusters of `nodes` each, with edges inside of them, and one node without."""
    generator, count = torch.Generator().manual_seed(0), 5 * nodes
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    ends += torch.randint(0, 5, (edges,), generator=generator) * nodes
    x = draw(count, 8, seed=1) + distance * draw(5, 8, seed=2)[torch.arange(count) // nodes]
    return CSRGraph.from_edge_index(ends, count + 1), torch.cat([x, draw(1, 8, seed=3)])


@pytest.mark.parametrize(("kernel", "backend"), list(product(["rbf", "rbf-exp", "l2"], EDGES)))
def test_gradients_of_far_clusters_do_not_cancel(kernel: str, backend: str) -> None:
    size = {"nodes": 3, "edges": 30} if backend == "triton" else {}  # the interpreter takes milliseconds an edge
    for distance in (0.0, 1e4) if backend == "triton" else (0.0, 1e3, 1e4):
        graph, x = clusters(distance, **size)
        upstream, nodes = draw(graph.num_edges, seed=4), graph.num_dst - 1

        def gradient(backend: str, x: Tensor, graph: CSRGraph = graph, upstream: Tensor = upstream) -> Tensor:
            leaf = x.clone().requires_grad_()
            out = edge_log_probs(graph, leaf, kernel, 1.0, backend=backend)
            return torch.autograd.grad(out, leaf, upstream.to(out.dtype))[0].double()

        x = x.double().float()
        exact, found = gradient("reference", x.double()), gradient(backend, x)
        assert float((found - exact).norm() / exact.norm()) < 1e-5
        x[nodes] = torch.nan  # no edge reads it
        torch.testing.assert_close(gradient(backend, x)[:nodes], found[:nodes], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kernel", "backend"), list(product(["laplace", "rbf", "l2", "cosine", "poly"], EDGES)))
def test_nan_shows_in_every_structure(kernel: str, backend: str) -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 0, 1, 2, 3], [2, 2, 0, 3, 3, 1, 3]]), 5)
    x = draw(5, 3, seed=1)
    x[0] = torch.nan
    leaf = x.requires_grad_()
    found = edge_log_probs(graph, leaf, kernel, 1.0, backend=backend)
    assert bool(found[(graph.row == 2) | (graph.row == 3)].isnan().all())
    assert bool(torch.autograd.grad(found.sum(), leaf)[0].isnan().any())
    clean = draw(5, 3, seed=2).requires_grad_()
    for student, teacher in ((leaf, clean.detach()), (clean, x.detach()), (clean, found.detach())):
        loss = structure_kl(graph, student, teacher, kernel=kernel, sigma=1.0, backend=backend)
        assert bool(loss.isnan())
        read = torch.autograd.grad(loss, student)[0][[1, 2, 3]]  # what rows 2 and 3 read, and themselves
        assert bool(read.isnan().any(1).all())


@pytest.mark.parametrize("backend", ["reference", "cpu", *NUMBA])
def test_a_cosine_does_not_depend_on_the_scale(backend: str) -> None:
    graph, x = clusters(0.0)
    grads = []
    for scale in (1.0, 1e20):
        leaf = (x * scale).requires_grad_()
        out = edge_log_probs(graph, leaf, "cosine", 1.0, backend=backend)
        grads += [out.detach(), scale * torch.autograd.grad(out, leaf, draw(700, seed=4))[0]]
    torch.testing.assert_close(grads[0], grads[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads[1], grads[3], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("backend", EDGES)
def test_teachers_that_are_no_distribution_are_refused(backend: str) -> None:
    graph, x = clusters(0.0, nodes=3, edges=30)
    teacher = edge_log_probs(graph, draw(16, 8, seed=5), "laplace", 1.0)
    settings = {"kernel": "laplace", "sigma": 1.0, "backend": backend}
    with pytest.raises(ValueError, match=r"sum to 1 over the in-edges of each node, got a sum of 1\.65"):
        structure_kl(graph, x, teacher + 0.5, **settings)  # type: ignore[arg-type]
    wanted = structure_kl(graph, x, teacher, **settings)  # type: ignore[arg-type]
    for dtype in HALVES:
        torch.testing.assert_close(structure_kl(graph, x, teacher.to(dtype), **settings), wanted, rtol=0.05, atol=1e-2)  # type: ignore[arg-type]


def test_autocast_leaves_routing_alone_and_casts_linear_maps() -> None:
    x, memory, weight = draw(300, 64, seed=1), draw(16, 64, seed=2), draw(16, 64, 5, seed=3)
    index, alpha, cosine = route_by_memory(x, memory, 2)
    sparse = SparseFeatures.from_dense(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for backend in ("reference", "cpu"):
            again = route_by_memory(x, memory, 2, backend=backend)
            assert torch.equal(again[0], index)
            torch.testing.assert_close(again[2], cosine)
        y = expert_linear(x, weight, None, index, alpha)
        half = expert_linear(x.bfloat16(), weight, None, index, alpha)
        assert y.dtype == half.dtype == torch.bfloat16 and torch.equal(y, half)
        assert expert_linear(sparse, weight.bfloat16(), None, index, alpha).dtype == torch.float32
        assert mutual_kl([x, x.bfloat16()], pair_weight=torch.ones(2, 2))[0].dtype == torch.float32
    with pytest.raises(ValueError, match="expected"):
        expert_linear(x.bfloat16(), weight, None, index, alpha)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton", *NUMBA])
@pytest.mark.parametrize("stacked", [True, False])
def test_a_gradient_may_be_changed_between_two_passes(stacked: bool, backend: str) -> None:
    peers = [draw(6, 4, seed=k).requires_grad_() for k in range(3)]
    whole = torch.stack([p.detach() for p in peers]).requires_grad_()
    loss = mutual_kl(whole if stacked else peers, pair_weight=torch.ones(3, 3), backend=backend)[0].sum()
    leaves = [whole] if stacked else peers
    loss.backward(retain_graph=True)
    first = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    for leaf in leaves:
        assert leaf.grad is not None
        leaf.grad.zero_()
    loss.backward()
    assert len(first) == len(leaves) and all(
        leaf.grad is not None and torch.equal(leaf.grad, a) for leaf, a in zip(leaves, first, strict=True)
    )


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_second_derivatives_are_refused(backend: str) -> None:
    z, ptr = draw(2, 6, 4, seed=1).requires_grad_(), torch.tensor([0, 2, 6])
    readouts = READOUTS if backend == "triton" else []  # on the CPU they are torch's own operations
    calls = {
        "mutual_kl": lambda: mutual_kl(z, pair_weight=torch.ones(2, 2), backend=backend)[0],
        "soft_kl": lambda: soft_kl(z[0], Logits(draw(6, 4, seed=2)), backend=backend),
        **{name: lambda n=name: getattr(gkdkernels, n)(z[0], ptr, backend=backend) for name in readouts},
    }
    for name, call in calls.items():
        (grad,) = torch.autograd.grad(call().sum(), z, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"{name.replace('mean', 'sum')}: expected one derivative"):
            torch.autograd.grad(grad.sum(), z)
