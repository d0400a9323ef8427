"""What a graph keeps between calls: it never stands for another input, and the mode of the first call does no harm."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import (
    CSRGraph,
    SparseFeatures,
    edge_log_probs,
    expert_linear,
    gat_aggregate,
    gcn_norm,
    gcn_weight,
    spmm,
)
from gkdkernels.spmm import op
from torch import Tensor

N, E = 12, 60
EDGES = torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(0))
TABLE = torch.rand(2 * E, generator=torch.Generator().manual_seed(1))
REDUCES = ("sum", "mean")


def fresh() -> CSRGraph:
    return CSRGraph.from_edge_index(EDGES, N)


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of this size are kept."""
    monkeypatch.setattr(op, "_LONG", 1)


def gradient(graph: CSRGraph, weight: Tensor, backend: str = "auto", reduce: str = "sum") -> Tensor:
    x = torch.ones(N, 2, dtype=weight.dtype, requires_grad=True)
    return torch.autograd.grad(spmm(graph, x, weight, reduce, backend=backend).sum(), x)[0]


def through_numpy() -> tuple[Tensor, Callable[[], Tensor]]:
    buffer = np.random.default_rng(0).random(E).astype(np.float32)
    shared = torch.from_numpy(buffer)

    def change() -> Tensor:
        buffer[:] = np.arange(E)
        return shared

    return shared, change


def by_data() -> tuple[Tensor, Callable[[], Tensor]]:
    weight = TABLE[:E].clone()

    def change() -> Tensor:
        weight.data.mul_(3)
        return weight

    return weight, change


CHANGES: dict[str, Callable[[], tuple[Tensor, Callable[[], Tensor]]]] = {
    "a numpy buffer": through_numpy,
    ".data": by_data,
    "in place": lambda: ((w := TABLE[:E].clone()), lambda: w.mul_(3)),
    "a stride": lambda: (TABLE[:E], lambda: TABLE[::2]),
    "an expanded view": lambda: (TABLE[:E], lambda: TABLE[:1].expand(E)),
    "a column": lambda: (TABLE[:E], lambda: TABLE.view(E, 2)[:, 0]),
    "another dtype": lambda: (TABLE[:E], lambda: TABLE[:E].double()),
    "another dtype, the same bits": lambda: (TABLE[:E].half(), lambda: TABLE[:E].half().view(torch.bfloat16)),
}


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_kept_weight_stands_for_its_own_values_alone(change: str, reduce: str) -> None:
    graph, (weight, then) = fresh(), CHANGES[change]()
    gradient(graph, weight, reduce=reduce)
    assert "_transposed_values" in graph.__dict__ or weight.dtype != torch.float32
    weight = then()
    found, wanted = gradient(graph, weight, reduce=reduce), gradient(graph, weight, "reference", reduce)
    torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("keeps")
def test_a_key_of_addresses_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with the address in place of the bits, the changed buffer goes unseen."""
    monkeypatch.setattr(op, "_bits", lambda value: torch.tensor(value.data_ptr()))
    monkeypatch.setattr(op, "_with_transposed", lambda graph, value: (value, value[graph.transposed.edge]))
    graph, (weight, then) = fresh(), through_numpy()
    gradient(graph, weight)
    weight = then()
    assert not torch.allclose(gradient(graph, weight), gradient(graph, weight, "reference"))


@pytest.mark.usefixtures("keeps")
def test_equal_weights_are_turned_once() -> None:
    graph = fresh()
    gradient(graph, TABLE[:E])
    kept = graph.__dict__["_transposed_values"][1]
    gradient(graph, TABLE[:E].clone())
    assert graph.__dict__["_transposed_values"][1] is kept


def test_a_short_weight_is_not_kept() -> None:
    graph = fresh()
    gradient(graph, TABLE[:E])
    assert "_transposed_values" not in graph.__dict__


FIRST: dict[str, Callable[[CSRGraph, Tensor], Any]] = {
    "gcn_norm": lambda g, x: spmm(g, x, gcn_norm(g)),
    "gcn_weight": lambda g, x: spmm(g, x, gcn_weight(g)),
    "constant weight": lambda g, x: spmm(g, x, TABLE[:E]),
    "mean": lambda g, x: spmm(g, x, reduce="mean"),
    "max": lambda g, x: spmm(g, x, reduce="max"),
    "gat": lambda g, x: gat_aggregate(g, x[:, None], x[:, :1], x[:, 1:2])[:, 0],
    "edge_log_probs": lambda g, x: edge_log_probs(g, x, "cosine", 1.0),
    "experts": lambda g, x: expert_linear(
        SparseFeatures(g, TABLE[:E]),
        x.t()[None].expand(2, -1, -1).transpose(1, 2),
        None,
        torch.zeros(N, 1, dtype=torch.int64),
        torch.ones(N, 1),
    ),
}


@pytest.mark.usefixtures("keeps")
@pytest.mark.parametrize("made_in", ["inference mode", "a transform", "training"])
@pytest.mark.parametrize("first", FIRST)
def test_a_first_pass_in_inference_mode_does_no_harm(first: str, made_in: str) -> None:
    call, x = FIRST[first], torch.rand(N, 4, generator=torch.Generator().manual_seed(2))
    wanted = torch.autograd.grad(call(fresh(), y := x.clone().requires_grad_()).square().sum(), y)[0]
    graph = fresh()
    if made_in == "inference mode":
        with torch.inference_mode():
            graph = CSRGraph(graph.indptr.clone(), graph.index.clone(), N)  # a loader inside of validation
            call(graph, x)
    elif made_in == "a transform":
        torch.func.vmap(lambda t: t * graph.prepare().degree.sum())(x)
    else:
        graph.prepare()
    leaf = x.clone().requires_grad_()
    found = call(graph, leaf)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), leaf)[0], wanted)
    kept = [t for value in graph.__dict__.values() for t in (value if isinstance(value, tuple) else (value,))]
    assert not any(t.is_inference() for t in kept if isinstance(t, Tensor))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_a_copied_graph_takes_its_norm(copied: Callable[[CSRGraph], CSRGraph]) -> None:
    graph, x = fresh().prepare(), torch.rand(N, 2)
    wanted = spmm(graph, x, gcn_norm(graph))
    other = copied(graph)
    assert torch.equal(spmm(other, x, gcn_norm(other)), wanted)
    with pytest.raises(ValueError, match="expected the norm of this graph"):
        spmm(fresh(), x, gcn_norm(graph))
