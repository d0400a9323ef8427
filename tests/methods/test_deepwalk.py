"""DeepWalk: walks are walks, steps follow the gradient of their objective, encodings repeat and know the blocks."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph

from gkdbench.data.synthetic import csbm
from gkdbench.training.blocks import deepwalk as _deepwalk
from gkdbench.training.blocks.deepwalk import DeepWalk, deepwalk, random_walks
from gkdbench.training.blocks.huffman import huffman_paths

SMALL = {"walk_length": 12, "num_walks": 4, "window": 4, "iterations": 2, "dim": 8}


def settings(**changes: Any) -> DeepWalk:
    return DeepWalk(**{**SMALL, **changes})


def graph_of(edges: list[tuple[int, int]], nodes: int, *, both: bool = True) -> CSRGraph:
    pairs = torch.tensor(edges).T.reshape(2, -1)
    pairs = torch.cat([pairs, pairs.flip(0)], dim=1) if both else pairs
    return CSRGraph.from_edge_index(pairs, nodes, both)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoding is remembered from another test."""
    monkeypatch.setattr(_deepwalk, "_KEPT", type(_deepwalk._KEPT)())


def test_walks_follow_edges_from_every_node_that_has_one() -> None:
    graph = graph_of([(0, 1), (1, 2), (2, 0), (3, 4)], 6)
    walks = random_walks(graph, 9, 3, torch.Generator().manual_seed(0))
    assert walks.shape == (15, 9)
    assert sorted(walks[:, 0].tolist()) == sorted([0, 1, 2, 3, 4] * 3)
    edges = set(zip(graph.index.tolist(), graph.row.tolist(), strict=True))
    for walk in walks.tolist():
        assert set(pairwise(walk)) <= edges


def test_walks_leave_by_each_edge_equally_often() -> None:
    star = graph_of([(0, leaf) for leaf in range(1, 6)], 6)
    walks = random_walks(star, 2, 4000, torch.Generator().manual_seed(0))
    seen = torch.bincount(walks[walks[:, 0] == 0][:, 1].long(), minlength=6)[1:]
    assert (seen - 800).abs().max() < 5 * 800**0.5


@pytest.mark.parametrize("softmax", ["negative", "hierarchical"])
def test_encodings_repeat_and_depend_on_what_they_should(softmax: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = csbm(n=80, classes=2).graph
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    first = deepwalk(graph, settings(softmax=softmax), 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    assert first.shape == (80, 8)
    assert torch.isfinite(first).all()
    assert deepwalk(graph, settings(softmax=softmax), 0) is first, "kept for the other students of the split"
    assert not torch.equal(deepwalk(graph, settings(softmax=softmax), 1), first)
    for name, value in {"walk_length": 11, "num_walks": 3, "window": 3, "iterations": 1}.items():
        assert not torch.equal(deepwalk(graph, settings(softmax=softmax, **{name: value}), 0), first), name
    _deepwalk._KEPT.clear()
    assert torch.equal(deepwalk(graph, settings(softmax=softmax), 0), first)


def test_only_a_few_results_are_kept() -> None:
    graph = graph_of([(0, 1), (1, 2)], 3)
    for seed in range(20):
        deepwalk(graph, settings(), seed)
    assert len(_deepwalk._KEPT) == _deepwalk._AT_MOST


def test_loops_and_directions_do_not_matter_and_lonely_nodes_are_zero() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (3, 0)]
    plain = deepwalk(graph_of(edges, 6), settings(), 0)
    looped = CSRGraph.from_edge_index(
        torch.tensor([*edges, *((b, a) for a, b in edges), *((v, v) for v in range(5))]).T, 6, True
    )
    assert torch.equal(deepwalk(looped, settings(), 0), plain)
    assert torch.equal(deepwalk(graph_of(edges, 6, both=False), settings(), 0), plain)
    assert (plain[:4].norm(dim=1) > 0).all()
    assert (plain[4:] == 0).all()


@pytest.mark.parametrize("softmax", ["negative", "hierarchical"])
def test_a_graph_without_edges_has_zero_encodings(softmax: Any) -> None:
    empty = CSRGraph(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3)
    assert torch.equal(deepwalk(empty, settings(softmax=softmax), 0), torch.zeros(3, 8))


@pytest.mark.parametrize("softmax", ["negative", "hierarchical"])
def test_a_linear_rule_reads_the_blocks_from_encodings(softmax: Any) -> None:
    """Ridge regression on 20 labels a class; chance is 1 in 3."""
    task = csbm(n=300, classes=3, degree=10, within=0.85)
    x = F.normalize(deepwalk(task.graph, settings(softmax=softmax, dim=16, num_walks=8), 0), dim=1)
    known = torch.cat([(task.labels == c).nonzero().flatten()[:20] for c in range(3)])
    target = F.one_hot(task.labels[known], 3).float()
    weight = torch.linalg.solve(x[known].T @ x[known] + 0.1 * torch.eye(16), x[known].T @ target)
    rest = torch.ones(300, dtype=torch.bool)
    rest[known] = False
    right = ((x @ weight).argmax(1) == task.labels)[rest].float().mean()
    assert right > 0.8


def recorded(monkeypatch: pytest.MonkeyPatch, make: Any, walks: torch.Tensor, window: int) -> tuple[Any, list[Any]]:
    """One step's tables, and the gradients that it hands to them."""
    tables: list[Any] = []
    gradients: list[torch.Tensor] = []

    class Table(_deepwalk._Rows):
        def __init__(self, value: torch.Tensor) -> None:
            tables.append(self)
            super().__init__(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(tables))))

        def descend(self, row: torch.Tensor, gradient: torch.Tensor) -> None:
            gradients.append(torch.zeros_like(self.value).index_add_(0, row, gradient))

    monkeypatch.setattr(_deepwalk, "_Rows", Table)
    centres = Table(torch.zeros(5, 3))
    step = make(centres, walks, _deepwalk._band(walks.size(1), window), torch.Generator().manual_seed(0))
    step(walks)
    return tables, gradients


WALKS = torch.tensor([[0, 1, 2, 1, 3], [4, 3, 1, 0, 1]])


def pairs(window: int) -> list[tuple[int, int, float]]:
    """(centre, context, weight) of `WALKS`, one by one."""
    found = []
    for walk in WALKS.tolist():
        for i, a in enumerate(walk):
            for j, b in enumerate(walk):
                if i != j and abs(i - j) <= window:
                    found.append((a, b, (window + 1 - abs(i - j)) / window))
    return found


def test_a_step_follows_the_gradient_of_negative_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    (centres, contexts), got = recorded(monkeypatch, _deepwalk._negative_sampling, WALKS, 2)
    u, v = (table.value.double().requires_grad_() for table in (centres, contexts))
    generator = torch.Generator().manual_seed(0)
    share = torch.bincount(WALKS.flatten(), minlength=5).double() ** 0.75
    draws = torch.rand(_deepwalk.NOISE, generator=generator, dtype=torch.float64)
    noise = torch.searchsorted((share / share.sum()).cumsum(0), draws)
    loss = torch.zeros((), dtype=torch.float64)
    for a, b, weight in pairs(2):
        loss = loss - weight * F.logsigmoid(u[a] @ v[b])
        loss = loss - weight * 5 * F.logsigmoid(-(v[noise] @ u[a])).mean()
    wanted = torch.autograd.grad(loss, [u, v])
    for mine, reference in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)


def test_a_step_follows_the_gradient_of_the_hierarchical_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    (centres, inner), got = recorded(monkeypatch, _deepwalk._hierarchical_softmax, WALKS, 2)
    u, theta = (table.value.double().requires_grad_() for table in (centres, inner))
    node, turn = huffman_paths(torch.bincount(WALKS.flatten(), minlength=5))
    loss = torch.zeros((), dtype=torch.float64)
    for a, b, weight in pairs(2):
        way = turn[b] != 0
        loss = loss - weight * F.logsigmoid(turn[b][way].double() * (theta[node[b][way]] @ u[a])).sum()
    wanted = torch.autograd.grad(loss, [u, theta])
    for mine, reference in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)


def test_huffman_paths_are_shortest_for_the_frequent() -> None:
    _, turn = huffman_paths(torch.tensor([1, 8, 1, 2, 4]))
    assert (turn != 0).sum(1).tolist() == [4, 1, 4, 3, 2]


@pytest.mark.parametrize("leaves", [1, 2, 7, 40])
def test_probabilities_of_all_leaves_sum_to_one(leaves: int) -> None:
    generator = torch.Generator().manual_seed(leaves)
    node, turn = huffman_paths(torch.randint(0, 9, (leaves,), generator=generator))
    score = torch.randn(max(leaves - 1, 1), generator=generator, dtype=torch.float64)
    taken = torch.where(turn != 0, torch.sigmoid(turn * score[node]), 1.0)
    assert taken.prod(1).sum().item() == pytest.approx(1.0)


def test_repeated_rows_step_once_on_their_sum() -> None:
    table = _deepwalk._Rows(torch.zeros(3, 2))
    table.descend(torch.tensor([2, 0, 2]), torch.tensor([[1.0, 1.0], [3.0, 0.0], [1.0, 1.0]]))
    assert torch.equal(table.value[1], torch.zeros(2))
    torch.testing.assert_close(table.value[2], torch.full((2,), -_deepwalk.RATE))
    torch.testing.assert_close(table.value[0], torch.tensor([-_deepwalk.RATE * 2**0.5, 0.0]))
