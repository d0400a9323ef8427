"""Routing and the moving memory against oracles written from the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gkdkernels import MixedFeatures, SparseFeatures
from gkdkernels.experts.routing import cosines, memory_update, route_by_memory, route_by_scores, row_norms
from gkdkernels.graph import Features
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[..., Tensor]
BACKENDS = ["reference", "cpu", "triton"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 1e-5, torch.float16: 1e-5}
# N, D, E, k
SHAPES = [(0, 3, 2, 1), (1, 1, 1, 1), (63, 7, 5, 3), (40, 47, 4, 4), (33, 0, 3, 2), (70, 130, 17, 2)]


def at(backend: str, device: torch.device) -> torch.device:
    return device if backend == "triton" else torch.device("cpu")


def scores_oracle(x: Tensor, memory: Tensor) -> Tensor:
    """[N, E] fp64 cosines, row by row."""
    out = torch.zeros(x.size(0), memory.size(0), dtype=torch.float64)
    for n in range(x.size(0)):
        for e in range(memory.size(0)):
            norms = max(float(x[n].norm()), 1e-12) * max(float(memory[e].norm()), 1e-12)
            out[n, e] = float(x[n] @ memory[e]) / norms
    return out


def choice_oracle(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    index = torch.zeros(scores.size(0), k, dtype=torch.int64)
    alpha = torch.zeros(scores.size(0), k, dtype=torch.float64)
    for n, row in enumerate(scores.tolist()):
        best = sorted(range(len(row)), key=lambda e: (-row[e], e))[:k]
        weights = [math.exp(row[e]) for e in best]
        index[n] = torch.tensor(best)
        alpha[n] = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    return index, alpha


def gradient_oracle(
    x: Tensor, memory: Tensor, index: Tensor, alpha: Tensor, da: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and memory for upstream gradients of alpha and cosine."""
    ds = alpha * (da - (alpha * da).sum(1, keepdim=True)) + dc
    dx, dm = torch.zeros_like(x), torch.zeros_like(memory)
    for n in range(x.size(0)):
        for j in range(index.size(1)):
            e = int(index[n, j])
            a, b = x[n].norm(), memory[e].norm()
            xh, mh = x[n] / a, memory[e] / b
            cosine = xh @ mh
            dx[n] += ds[n, j] * (mh - cosine * xh) / a
            dm[e] += ds[n, j] * (xh - cosine * mh) / b
    return dx, dm


def close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert got.shape == wanted.shape
    error = (got.detach().cpu().double() - wanted).norm()
    assert error <= tolerance * max(1.0, float(wanted.norm())), float(error)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients(
    draw: Draw, device: torch.device, shape: tuple[int, int, int, int], backend: str, dtype: torch.dtype
) -> None:
    rows, width, experts, k = shape
    on, tolerance = at(backend, device), TOLERANCE[dtype]
    x, memory, da, dc = (t.to(dtype) for t in (draw(rows, width), draw(experts, width), draw(rows, k), draw(rows, k)))
    scores = scores_oracle(x.double(), memory.double())
    index, alpha = choice_oracle(scores, k)
    leaves = (x.clone().to(on).requires_grad_(), memory.clone().to(on).requires_grad_())
    got = route_by_memory(*leaves, k, backend=backend)
    assert torch.equal(got[0].cpu(), index)
    assert got[0].dtype == torch.int64
    assert got[1].dtype == got[2].dtype == dtype
    close(got[1], alpha, tolerance)
    close(got[2], scores.gather(1, index), tolerance)
    grads = torch.autograd.grad(got[1:], leaves, (da.to(on), dc.to(on)))
    if width:
        for one, other in zip(
            grads,
            gradient_oracle(x.double(), memory.double(), index, alpha, da.double(), dc.double()),
            strict=True,
        ):
            close(one, other, 10 * tolerance)
    assert torch.equal(leaves[0].detach().cpu(), x)
    assert torch.equal(leaves[1].detach().cpu(), memory)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cosines_of_half_precisions_are_single(
    draw: Draw, device: torch.device, backend: str, dtype: torch.dtype
) -> None:
    x, memory = draw(50, 33).to(dtype), draw(6, 33).float()
    scores = scores_oracle(x.double(), memory.double())
    wanted, alpha = choice_oracle(scores, 2)
    on = at(backend, device)
    got = route_by_memory(x.to(on), memory.to(on), 2, backend=backend)
    assert torch.equal(got[0].cpu(), wanted)
    assert got[1].dtype == got[2].dtype == torch.float32
    close(got[1], alpha, TOLERANCE[dtype])
    close(got[2], scores.gather(1, wanted), TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [5, 100])
def test_ties_take_the_lowest_expert(device: torch.device, backend: str, rows: int) -> None:
    on = at(backend, device)
    memory = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [4.0, 0.0]], device=on)
    x = torch.tensor([[1.0, 0.0]], device=on).repeat(rows, 1)
    index, alpha, cosine = route_by_memory(x, memory, 4, backend=backend)
    assert index.tolist() == [[1, 2, 4, 0]] * rows
    assert cosine.tolist() == [[1.0, 1.0, 1.0, 0.0]] * rows
    torch.testing.assert_close(alpha.sum(1), torch.ones(rows, device=on))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_zero_row_takes_the_first_experts(draw: Draw, device: torch.device, backend: str) -> None:
    on = at(backend, device)
    x, memory = draw(70, 6).float(), draw(5, 6).float()
    x[2], memory[3] = 0.0, 0.0
    leaves = (x.to(on).requires_grad_(), memory.to(on).requires_grad_())
    index, alpha, cosine = route_by_memory(*leaves, 3, backend=backend)
    assert index[2].tolist() == [0, 1, 2]
    torch.testing.assert_close(alpha[2], torch.full((3,), 1 / 3, device=on))
    assert not cosine[2].any()
    grads = torch.autograd.grad((alpha * cosine).sum(), leaves)
    assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_visible(draw: Draw, device: torch.device, backend: str) -> None:
    on = at(backend, device)
    x, memory = draw(70, 4).float(), draw(3, 4).float()
    x[1, 0] = torch.nan
    index, alpha, cosine = route_by_memory(x.to(on), memory.to(on), 2, backend=backend)
    assert bool(cosine[1].isnan().all()) and bool(alpha[1].isnan().all())
    assert int(index.min()) >= 0 and int(index.max()) < 3
    assert not cosine[2:].isnan().any()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_strides_and_two_runs(draw: Draw, device: torch.device, backend: str) -> None:
    on = at(backend, device)
    x, memory = draw(6, 90).float().to(on).t()[:, ::2], draw(3, 5).float().to(on).t()
    da, dc = draw(2, 90).float().to(on).t(), draw(90, 2).float().to(on)

    def run(backend: str) -> tuple[Tensor, ...]:
        leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, memory)]
        found = route_by_memory(*leaves, 2, backend=backend)
        return (*found, *torch.autograd.grad(found[1:], leaves, (da, dc)))

    for one, other, right in zip(run(backend), run(backend), run("reference"), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradcheck(draw: Draw, backend: str) -> None:
    x, memory = draw(7, 3).requires_grad_(), draw(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: route_by_memory(a, b, 2, backend=backend)[1:], (x, memory), fast_mode=True
    )


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 90), experts=st.integers(1, 9), k=st.integers(1, 9), seed=st.integers(0, 1000))
def test_scores_with_many_ties(rows: int, experts: int, k: int, seed: int) -> None:
    scores = torch.randint(-2, 3, (rows, experts), generator=torch.Generator().manual_seed(seed)).double()
    k = min(k, experts)
    index, alpha = choice_oracle(scores, k)
    got = route_by_scores(scores, k)
    assert torch.equal(got[0], index)
    torch.testing.assert_close(got[1], alpha)
    assert torch.equal(got[2], scores.gather(1, index))


def test_scores_are_differentiable(draw: Draw) -> None:
    scores = draw(70, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: route_by_scores(s, 3)[1:], (scores,), fast_mode=True)


@pytest.mark.parametrize("mixed", [False, True], ids=["sparse", "mixed"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_sparse_features_are_their_dense_copy(draw: Draw, backend: str, mixed: bool) -> None:
    words, encodings = draw(80, 9) * (draw(80, 9) > 0.5), draw(80, 3)
    words[4] = 0.0
    sparse = SparseFeatures.from_dense(words)
    x: Features = MixedFeatures(sparse, encodings) if mixed else sparse
    dense = torch.cat([words, encodings], 1) if mixed else words
    memory = draw(4, dense.size(1)).requires_grad_()
    got, wanted = route_by_memory(x, memory, 2, backend=backend), route_by_memory(dense, memory, 2)
    assert torch.equal(got[0], wanted[0])
    g = draw(80, 2)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(
            torch.autograd.grad(one, memory, g, retain_graph=True),
            torch.autograd.grad(other, memory, g, retain_graph=True),
        )
    torch.testing.assert_close(
        memory_update(memory, x, wanted[0], wanted[1]), memory_update(memory, dense, wanted[0], wanted[1])
    )


def test_memory_follows_its_rows(draw: Draw) -> None:
    x, memory = draw(30, 5), draw(4, 5)
    x[7] = 0.0
    index, alpha = draw(30, 3).argsort(1)[:, :2], draw(30, 2).softmax(1)  # expert 3 gets none
    before = [t.clone() for t in (x, memory, index, alpha)]
    wanted = torch.zeros_like(memory)
    for e in range(4):
        here = [(n, j) for n in range(30) for j in range(2) if int(index[n, j]) == e]
        total = sum(math.exp(float(alpha[n, j])) for n, j in here)
        wanted[e] = 0.9 * memory[e] / memory[e].norm()
        for n, j in here:
            if n != 7:
                wanted[e] += 0.1 * math.exp(float(alpha[n, j])) / total * x[n] / x[n].norm()
    got = memory_update(memory.requires_grad_(), x, index, alpha)
    torch.testing.assert_close(got, wanted)
    assert not got.requires_grad
    torch.testing.assert_close(got[3].norm(), torch.tensor(0.9, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip((x, memory, index, alpha), before, strict=True))
    assert memory_update(memory.float(), x.float(), index.int(), alpha.float()).dtype == torch.float32
    torch.testing.assert_close(memory_update(memory, x, index, alpha, decay=1.0), memory / memory.norm(dim=1)[:, None])


@pytest.mark.parametrize("kind", ["dense", "sparse", "mixed"])
def test_norms_that_the_caller_has_change_no_bit(draw: Draw, kind: str) -> None:
    dense = (draw(60, 9) * (draw(60, 9) > 0)).float()
    sparse = SparseFeatures.from_dense(dense)
    x: Features = {"dense": dense, "sparse": sparse, "mixed": MixedFeatures(sparse, draw(60, 3).float())}[kind]
    memory = draw(4, x.shape[1]).float()
    index, alpha, _ = route_by_memory(x, memory, 2)
    norms = row_norms(x)
    assert torch.equal(cosines(x, memory, norms=norms), cosines(x, memory))
    assert torch.equal(memory_update(memory, x, index, alpha, norms=norms), memory_update(memory, x, index, alpha))
    assert not torch.equal(cosines(x, memory, norms=2 * norms), cosines(x, memory))
    assert row_norms(x).dtype == torch.float32 and row_norms(x, torch.float64).dtype == torch.float64


def test_turned_values_belong_to_the_transposed_edges(draw: Draw) -> None:
    dense = (draw(20, 6) * (draw(20, 6) > 0)).float()
    x = SparseFeatures.from_dense(dense)
    assert x.transposed is x.transposed
    assert torch.equal(SparseFeatures(x.graph.transposed.graph, x.transposed).dense(), dense.t())


@pytest.mark.full
def test_compiles_in_one_graph(draw: Draw) -> None:
    x, memory = draw(80, 5).requires_grad_(), draw(4, 5).requires_grad_()

    def run(x: Tensor, memory: Tensor) -> Tensor:
        _, alpha, cosine = route_by_memory(x, memory, 2)
        return (alpha * cosine).sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for one, other in zip(
        torch.autograd.grad(compiled(x, memory), (x, memory)),
        torch.autograd.grad(run(x, memory), (x, memory)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(5)}, r"x: expected a float matrix \[N, D\]"),
        ({"x": torch.zeros(5, 2, dtype=torch.int64)}, r"x: expected a float matrix \[N, D\], got torch.int64"),
        ({"memory": torch.zeros(3, 4)}, r"memory: expected shape \[E, 2\], got \(3, 4\)"),
        ({"memory": torch.zeros(3, 2, dtype=torch.int64)}, "memory: expected a float dtype on cpu, got torch.int64"),
        (
            {"memory": torch.zeros(3, 2, device="meta")},
            "memory: expected a float dtype on cpu, got torch.float32 on meta",
        ),
        ({"k": 0}, r"k: expected a number of experts in \[1, E=3\], got 0"),
        ({"k": 4}, r"k: expected a number of experts in \[1, E=3\], got 4"),
        ({"backend": "cuda"}, "backend of route_by_memory: expected one of auto, reference, cpu, triton, got 'cuda'"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    good = {"x": torch.zeros(5, 2), "memory": torch.zeros(3, 2), "k": 2}
    with pytest.raises(ValueError, match=words):
        route_by_memory(**{**good, **change})  # type: ignore[arg-type]


def test_bad_scores_updates_and_sparse_gradients() -> None:
    with pytest.raises(ValueError, match=r"scores: expected a float matrix \[N, E\]"):
        route_by_scores(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"k: expected a number of experts in \[1, E=2\], got 3"):
        route_by_scores(torch.zeros(3, 2), 3)
    good = (torch.zeros(3, 2), torch.zeros(5, 2), torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"memory: expected shape \[E, 2\]"):
        memory_update(torch.zeros(3, 3), *good[1:])
    with pytest.raises(ValueError, match=r"alpha: expected shape \[5, k\]"):
        memory_update(*good[:3], torch.ones(5, 2))
    with pytest.raises(ValueError, match=r"decay: expected a value in \[0, 1\], got 2"):
        memory_update(*good, decay=2)
    x = SparseFeatures.from_dense(torch.eye(5, 2))
    x.value.requires_grad_()
    with pytest.raises(ValueError, match=r"use a dense .* tensor to differentiate in x"):
        route_by_memory(x, torch.zeros(2, 2), 1)
