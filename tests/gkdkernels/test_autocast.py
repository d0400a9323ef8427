"""Mixed precision by `torch.autocast`: operators take what torch's own take, and nothing inside them is cast."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from gkdkernels import CSRGraph, expert_linear, gat_aggregate, gcn_norm, spmm
from gkdkernels.core.autocast import lowered, promoted, shielded
from torch import Tensor

NUMBA = ["numba"] * (find_spec("numba") is not None)
GRAPH = CSRGraph.from_edge_index(torch.randint(0, 20, (2, 60), generator=torch.Generator().manual_seed(0)), 20)
LOW = torch.bfloat16


def on() -> torch.autocast:
    return torch.autocast("cpu", LOW)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu", "triton"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_features_in_half_with_weights_in_fp32(reduce: str, backend: str) -> None:
    x, weight = draw(20, 4, seed=1).to(LOW).requires_grad_(), draw(60, seed=2).requires_grad_()
    with on():
        y = spmm(GRAPH, x, weight, reduce, backend=backend)
    wanted = spmm(GRAPH, x.float(), weight, reduce, backend=backend)
    assert y.dtype == torch.float32 and torch.equal(y, wanted)
    grads = torch.autograd.grad(y.sum(), (x, weight))
    assert [g.dtype for g in grads] == [LOW, torch.float32]
    with pytest.raises(ValueError, match=r"weight: expected torch\.bfloat16 .* like x, got torch\.float32"):
        spmm(GRAPH, x, weight, reduce, backend=backend)  # outside: nothing is cast behind one's back


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu", "triton", *NUMBA])
def test_attention_vectors_in_fp32(backend: str) -> None:
    h, score = draw(20, 2, 3, seed=1).to(LOW).requires_grad_(), draw(20, 2, seed=2)
    with on():
        y = gat_aggregate(GRAPH, h, score, score, backend=backend)
        y.sum().backward()
    assert y.dtype == torch.float32 and h.grad is not None and h.grad.dtype == LOW
    assert torch.equal(y, gat_aggregate(GRAPH, h.float(), score, score, backend=backend))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, LOW])
def test_inputs_of_one_dtype_stay_as_they_are(dtype: torch.dtype) -> None:
    x = draw(20, 4, seed=1).to(dtype)
    calls: tuple[Callable[[], Tensor], ...] = (
        lambda: spmm(GRAPH, x, gcn_norm(GRAPH)),
        lambda: gat_aggregate(GRAPH, x[:, None], x[:, :1], x[:, :1]),
    )
    for call in calls:
        wanted = call()
        with on():
            assert torch.equal(call(), wanted)


def test_products_inside_an_operator_are_not_cast() -> None:
    """Registered operators multiply matrices, which autocast would round behind their backs."""
    x, weight = draw(30, 16, seed=1), draw(3, 16, 8, seed=2)
    given = (None, torch.arange(30)[:, None] % 3, torch.ones(30, 1))
    wanted = torch.stack([x[i] @ weight[i % 3] for i in range(30)])
    shielded_product = shielded(torch.mm)
    with on():
        torch.testing.assert_close(
            expert_linear(x, weight, *given, backend="cpu").float(), wanted, rtol=2e-2, atol=1e-2
        )
        assert shielded_product(x, weight[0]).dtype == torch.float32
        assert torch.mm(x, weight[0]).dtype == LOW  # positive control
    assert shielded_product(x, weight[0]).dtype == torch.float32


def test_what_is_cast() -> None:
    half, single, double, index = draw(2, seed=0).to(LOW), draw(2, seed=1), draw(2, seed=2).double(), torch.arange(2)
    assert [t.dtype if t is not None else None for t in promoted(half, None, single, index)] == [
        torch.float32,
        None,
        torch.float32,
        torch.int64,
    ]
    assert promoted(half, half) == (half, half) and promoted(half, double) == (half, double)
    with on():
        assert [t.dtype for t in lowered(half, single, index) if t is not None] == [LOW, LOW, torch.int64]
        assert lowered(single, double) == (single, double)


def test_autocast_inside_a_compiled_function() -> None:
    GRAPH.prepare()
    x, weight = draw(20, 4, seed=1).to(LOW), draw(60, seed=2)

    def call(x: Tensor) -> Tensor:
        with on():
            return spmm(GRAPH, x, weight)

    torch._dynamo.reset()
    assert torch.equal(torch.compile(call, backend="eager", fullgraph=True)(x), call(x))
