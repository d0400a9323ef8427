"""What an operator cannot differentiate it refuses: second derivatives by every way, forward mode, torch.func."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from gkdkernels import (
    CSRGraph,
    edge_log_probs,
    expert_linear,
    gat_aggregate,
    matrix_product,
    route_by_memory,
    spmm,
    structure_kl,
)
from gkdkernels.core import derivatives
from torch import Tensor
from torch.autograd import forward_ad

Operator = Callable[[Tensor, str], Tensor]
N, WIDTH = 6, 4
GRAPH = CSRGraph.from_edge_index(torch.tensor([[1, 2, 3, 0, 4, 5, 1], [0, 0, 0, 1, 2, 3, 3]]), N)
ONES = torch.ones(N, WIDTH, dtype=torch.float64)
STACK = torch.arange(24.0, dtype=torch.float64).view(3, WIDTH, 2) / 24
CHOICE = torch.tensor([[0], [1], [2], [0], [1], [2]])

OPERATORS: dict[str, tuple[Operator, tuple[str, ...]]] = {
    "spmm": (lambda x, b: spmm(GRAPH, x.square(), backend=b), ("cpu", "triton")),
    "spmm, weight": (lambda x, b: spmm(GRAPH, ONES, x.flatten()[:7], backend=b), ("cpu", "triton")),
    "spmm max": (lambda x, b: spmm(GRAPH, x.square(), reduce="max", backend=b), ("cpu", "numba", "triton")),
    "gat_aggregate": (
        lambda x, b: gat_aggregate(GRAPH, x.view(N, 2, 2), x[:, :2], x[:, 2:], backend=b),
        ("cpu", "numba", "triton"),
    ),
    "gat_aggregate, scores": (
        lambda x, b: gat_aggregate(GRAPH, ONES.view(N, 2, 2), x[:, :2], x[:, 2:], backend=b).square(),
        ("cpu", "numba", "triton"),
    ),
    "edge_log_probs": (lambda x, b: edge_log_probs(GRAPH, x, "cosine", 1.0, backend=b), ("cpu", "numba", "triton")),
    "structure_kl": (
        lambda x, b: structure_kl(GRAPH, x, 2 * ONES + x.detach().square(), kernel="rbf", sigma=1.0, backend=b),
        ("cpu", "numba", "triton"),
    ),
    "expert_linear": (
        lambda x, b: expert_linear(x, STACK, None, CHOICE, x[:, :1], backend=b),
        ("cpu", "triton"),
    ),
}
"""Functions of ``x: [N, WIDTH]`` fp64 that are not linear in it; the reference of each has every derivative."""
NUMBA = find_spec("numba") is not None
CASES = [(name, b) for name, (_, backends) in OPERATORS.items() for b in backends if NUMBA or b != "numba"]
PENALTIES = ("grad of a constant upstream", "grad of an upstream that learns", "backward twice")


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(N, WIDTH, generator=generator, dtype=torch.float64).add_(0.1).requires_grad_()


def penalty(operator: Operator, x: Tensor, backend: str, how: str) -> Tensor:
    """The gradient of a norm of the gradient, plus a term that would hide the loss of it."""
    y = operator(x, backend)
    loss = y.square().sum() if how == "grad of an upstream that learns" else y.sum()
    if how == "backward twice":
        loss.backward(create_graph=True)
        assert x.grad is not None
        first, x.grad = x.grad, None
        (first.square().sum() + x.square().sum()).backward()
        found, x.grad = x.grad, None
        return found
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    return torch.autograd.grad(first.square().sum() + x.square().sum(), x)[0]


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
@pytest.mark.parametrize("how", PENALTIES)
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_second_derivative_is_right_or_refused(name: str, backend: str, how: str, x: Tensor) -> None:
    operator = OPERATORS[name][0]
    wanted = penalty(operator, x, "reference", how)
    try:
        found = penalty(operator, x, backend, how)
    except NotImplementedError as error:
        assert "differentiable once" in str(error) and "backend='reference'" in str(error)
    else:
        torch.testing.assert_close(found, wanted)


def test_torch_itself_would_lose_it(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: without the tie the penalty is another number, and no error."""
    monkeypatch.setattr(derivatives, "tie", lambda operator, grads, to: grads)
    operator = OPERATORS["gat_aggregate"][0]
    how = PENALTIES[0]
    assert not torch.allclose(penalty(operator, x, "cpu", how), penalty(operator, x, "reference", how))


def test_an_operator_that_keeps_results_alone_needs_its_link(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gkdkernels.gat.op.link_to", lambda *_: None)
    operator = OPERATORS["gat_aggregate"][0]
    how = PENALTIES[0]
    assert not torch.allclose(penalty(operator, x, "cpu", how), penalty(operator, x, "reference", how))


def test_one_derivative_with_a_graph_is_the_derivative(x: Tensor) -> None:
    operator = OPERATORS["gat_aggregate"][0]
    plain, kept = (torch.autograd.grad(operator(x, "cpu").sum(), x, create_graph=c)[0] for c in (False, True))
    assert kept.requires_grad and torch.equal(plain, kept)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_forward_mode_is_refused(name: str, backend: str, x: Tensor) -> None:
    operator, x = OPERATORS[name][0], x.detach()
    with pytest.raises(NotImplementedError, match=r"forward-mode tangent|torch\.func"):
        torch.func.jvp(lambda t: operator(t, backend), (x,), (x,))
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="forward-mode tangent"):
            operator(forward_ad.make_dual(x, x), backend)
        operator(x, backend)  # a constant has no tangent to lose


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_transforms_are_refused(name: str, backend: str, x: Tensor) -> None:
    operator, x = OPERATORS[name][0], x.detach()
    for call in (
        lambda: torch.func.vmap(lambda t: operator(t, backend))(x[None].repeat(2, 1, 1)),
        lambda: torch.func.grad(lambda t: operator(t, backend).sum())(x),
    ):
        with pytest.raises(NotImplementedError, match=r"torch\.func"):
            call()


@pytest.mark.parametrize("name", ["spmm", "edge_log_probs"])
def test_forward_mode_is_refused_while_traced(name: str, x: Tensor) -> None:
    operator, x = OPERATORS[name][0], x.detach()
    GRAPH.prepare()
    torch._dynamo.reset()
    traced = torch.compile(lambda t: torch.func.jvp(lambda s: operator(s, "cpu"), (t,), (t,))[1], backend="eager")
    with pytest.raises(NotImplementedError, match="forward-mode tangent"):
        traced(x)


def test_what_is_made_of_torch_alone_has_every_derivative(x: Tensor) -> None:
    x, memory = x.detach(), STACK[:, :, 0].contiguous()
    product = torch.func.vmap(lambda t: matrix_product(t, t.t()))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(product[1], 4 * x @ x.t())
    routed = torch.func.grad(lambda t: route_by_memory(t, memory, 2)[1][:, 0].sum())(x)
    leaf = x.clone().requires_grad_()
    route_by_memory(leaf, memory, 2)[1][:, 0].sum().backward()
    torch.testing.assert_close(routed, leaf.grad)
