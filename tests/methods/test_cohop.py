"""CoHOp: histograms against counting by hand, agreement of neighbours, whose labels shape what, published settings."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from support.pair_loops import random

from gkdbench.data.nodes import NodeTable, Space
from gkdbench.methods.gnn_to_mlp import cohop
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import Context
from gkdbench.testing.runs import small_method
from gkdbench.training.blocks.label_histogram import LabelHistogram, disagreement
from gkdbench.training.blocks.pairs import without_loops
from gkdbench.training.losses import supervised
from gkdbench.training.resolve import resolve

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (6, 7), (4, 9)]
"""Two parts and the lone node 8, undirected."""
LABELLED, LABELS, CLASSES, DECAY = [3, 0, 9, 6], [2, 0, 1, 0], 3, 0.4


def scene(loops: bool = False) -> Inputs:
    pairs = [*EDGES, *((b, a) for a, b in EDGES), *([(v, v) for v in range(10)] if loops else [])]
    graph = CSRGraph.from_edge_index(torch.tensor(pairs).T, 10, True)
    space = Space("ten", torch.arange(10) + 100)
    return Inputs(space, space, graph, torch.zeros(10, 2))


def histogram(labels: list[int] = LABELS, **options: Any) -> Any:
    known = NodeTable(Space("labelled", torch.tensor(LABELLED) + 100), torch.tensor(labels))
    settings: dict[str, Any] = {"reach": "hops", "decay": DECAY, "depth": 10, "own_label": False, "key": 7} | options
    return LabelHistogram(known, CLASSES, **settings)


def distances() -> np.ndarray:
    far = np.where(np.eye(10, dtype=bool), 0.0, np.inf)
    for a, b in EDGES:
        far[a, b] = far[b, a] = 1
    for k in range(10):
        far = np.minimum(far, far[:, k, None] + far[None, k])
    return far


@pytest.mark.parametrize("own_label", [False, True])
@pytest.mark.parametrize("depth", [2, 10])
def test_hops_are_counted_as_by_hand(own_label: bool, depth: int) -> None:
    wanted = np.zeros((10, CLASSES))
    for v in range(10):
        for u, label in zip(LABELLED, LABELS, strict=True):
            if distances()[v, u] <= depth and (own_label or u != v):
                wanted[v, label] += DECAY ** distances()[v, u]
    wanted /= wanted.sum(1, keepdims=True) + 1e-6
    for loops in (False, True):
        got = histogram(own_label=own_label, depth=depth).of(scene(loops))
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert not wanted[8].any()


def test_sources_in_parts_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = histogram().of(scene())
    monkeypatch.setattr("gkdbench.training.blocks.label_histogram.SOURCES_AT_ONCE", 3)
    torch.testing.assert_close(histogram().of(scene()), whole)


def test_walks_are_the_powers_of_the_mean() -> None:
    walk = np.zeros((10, 10))
    for a, b in [*EDGES, *((v, v) for v in range(10))]:  # walks use the graph's loops
        walk[a, b] = walk[b, a] = 1
    walk = DECAY * walk / np.maximum(walk.sum(1, keepdims=True), 1)
    series = np.linalg.matrix_power(np.eye(10) + walk, 3) @ walk
    start = np.zeros((10, CLASSES))
    start[LABELLED, LABELS] = 1
    wanted = {True: series @ start, False: series @ start}
    wanted[False] = wanted[True].copy()
    for v, label in zip(LABELLED, LABELS, strict=True):  # four labels: every one has a fold of its own
        wanted[False][v, label] -= series[v, v]
    for own_label, count in wanted.items():
        got = histogram(reach="walks", depth=5, own_label=own_label).of(scene(loops=True))
        np.testing.assert_allclose(got, count / (count.sum(1, keepdims=True) + 1e-6), atol=1e-6)


@pytest.mark.parametrize("reach", ["hops", "walks"])
def test_changing_a_label_leaves_its_own_nodes_input(reach: str) -> None:
    """docs/protocol.md, trap 17: the release's training rows hold their own answer, those of ``corrected`` do not."""
    for place, node in enumerate(LABELLED):
        changed = [(label + (place == at)) % CLASSES for at, label in enumerate(LABELS)]
        for own_label in (False, True):
            before, after = (histogram(y, reach=reach, own_label=own_label).of(scene()) for y in (LABELS, changed))
            assert torch.equal(before[node], after[node]) != own_label
            assert not torch.equal(before, after)


def test_labels_are_found_by_id_in_another_numbering() -> None:
    order = torch.tensor([4, 9, 2, 0, 7, 1, 3, 8, 6, 5])
    plain = scene()
    number = order.argsort()
    edges = torch.stack([number[plain.graph.index.long()], number[plain.graph.row.long()]])
    space = Space("other", plain.space.ids[order])
    moved = Inputs(space, space, CSRGraph.from_edge_index(edges, 10, True), plain.features)
    torch.testing.assert_close(histogram().of(moved), histogram().of(plain)[order])


@pytest.mark.parametrize("reach", ["hops", "walks"])
def test_labels_outside_a_scene_count_for_nothing(reach: str) -> None:
    elsewhere = dataclasses.replace(scene(), space=Space("elsewhere", torch.arange(10)))
    assert not histogram(reach=reach).of(elsewhere).any()


def test_disagreement_is_that_of_a_loop_with_gradients_into_both_ends() -> None:
    graph = without_loops(scene(loops=True).graph)
    logits = random(10, CLASSES).requires_grad_()
    p = logits.softmax(1)
    total = 0.0
    for i in range(10):
        neighbours = graph.index[graph.indptr[i] : graph.indptr[i + 1]].tolist()
        if neighbours:
            total = total + sum(-(p[i] * p[j].log()).sum() for j in neighbours) / len(neighbours)
    got = disagreement(logits, graph)
    torch.testing.assert_close(got, total / 10)
    assert torch.autograd.gradcheck(lambda z: disagreement(z, graph), (logits,))
    gradient = torch.autograd.grad(got, logits)[0]
    assert not gradient[8].any()
    assert gradient[[0, 9]].any(dim=1).all()


class Watcher:
    """A Monitor that never stops anything."""

    def declare(self, *names: str) -> None:
        """Any predictors may be evaluated."""

    def report(self, epoch: int, predictors: Any, **_: Any) -> Any:
        val = dict.fromkeys(predictors, 0.5)
        return type("Verdict", (), {"val": val, "improved": {}, "stop": False})


def rounds(bench: Any, **overrides: Any) -> Any:
    method = small_method("cohop", {"epochs": 2, **overrides}, epochs=2)
    return cohop._Rounds(method, bench.given("tran").view, Context(Watcher()))  # type: ignore[arg-type]


def test_batches_see_every_neighbour(bench: Any) -> None:
    """The mean over batches of the smoothness term is that of the full graph."""
    whole, parts = rounds(bench), rounds(bench, batch_size=30)
    nodes = torch.arange(210)
    logits = random(210, CLASSES)
    wanted = disagreement(logits, whole._graph)
    found = []
    for batch in torch.split(nodes, 30):
        graph, rows = parts._around(batch)
        found.append(disagreement(logits[rows], graph))
    torch.testing.assert_close(torch.stack(found).mean(), wanted)
    parts.train(last=True)


def test_no_term_of_weight_zero(bench: Any) -> None:
    arrays = bench.run("cohop", smoothness=0.0, rounds=1).scored.arrays
    assert "terms/smoothness" not in arrays
    both = bench.run("cohop", smoothness=0.1, rounds=1).scored.arrays
    np.testing.assert_allclose(both["terms/ce"] + both["terms/smoothness"], both["terms/loss"], rtol=1e-5)
    assert (both["terms/smoothness"] > 0).all()


def test_held_out_labels_are_not_learnt_in_their_round(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counting(logits: torch.Tensor, labels: torch.Tensor, *, multi_label: bool) -> torch.Tensor:
        counts.append(len(labels))
        return supervised(logits, labels, multi_label=multi_label)

    monkeypatch.setattr(cohop, "supervised", counting)
    state = rounds(bench, mixing="held_out", held_out=0.2, threshold=1.0)
    first = state._hidden.clone()
    state.train(last=False)
    state.relabel()
    assert not torch.equal(state._hidden, first)
    state.train(last=True)
    assert set(counts) == {48}, "60 labels, a fifth of them held out"
    assert state._ctx.extra["mixing_weight"] in cohop.GRID


def test_the_sure_are_labelled_and_the_truth_stays(bench: Any) -> None:
    state, view = rounds(bench, threshold=0.6), bench.given("tran").view
    state.train(last=False)
    state.relabel()
    guess = state.predictor.evaluate(view.inputs).softmax(1)
    guess[view.train.position] = F.one_hot(view.labels, 3).float()
    mean = torch.stack([guess[state._graph.index[a:b].long()].mean(0) for a, b in ends(state._graph)])
    mixed = 0.5 * guess + 0.5 * mean.nan_to_num()
    sure = mixed.max(1).values > 0.6
    sure[view.train.position] = True
    assert torch.equal(state._known, sure.nonzero().flatten())
    others = torch.ones(210, dtype=torch.bool)
    others[view.train.position] = False
    assert torch.equal(state._label[others], mixed.argmax(1)[others])
    assert torch.equal(state._label[view.train.position], view.labels)
    assert 60 < len(state._known) < 210


def ends(graph: CSRGraph) -> list[tuple[int, int]]:
    return list(pairwise(graph.indptr.tolist()))


def test_the_release_searches_its_weight_on_validation_in_an_epoch_of_its_own(bench: Any) -> None:
    released = bench.run("cohop", variant="as_released", rounds=2, epochs=3, patience=None)
    corrected = bench.run("cohop", rounds=2, epochs=3, patience=None)
    assert (released.outcome.epochs, corrected.outcome.epochs) == (7, 6)
    assert corrected.outcome.extra["mixing_weight"] == 0.5
    assert [m["name"] for m in released.outcome.models] == ["model"]
    assert "loss spike" not in released.outcome.flags


def test_a_round_of_the_release_stops_when_its_patience_is_spent(bench: Any) -> None:
    state = rounds(bench, variant="as_released", epochs=50, patience=3)
    falling = iter([0.6, 0.7, 0.7, 0.5, 0.5, 0.5])
    answer = Watcher()
    answer.report = lambda *_, **__: type("Verdict", (), {"val": {"model": next(falling)}, "stop": False})  # type: ignore[method-assign]
    state._ctx.monitor = answer
    state.train(last=False)
    assert state._epoch == 6


PUBLISHED = {
    "cora": (0.025, 0.1, 0.4, 0.5, 5e-4),
    "citeseer": (0.005, 0.1, 0.5, 0.6, 5e-4),
    "pubmed": (0.01, 0.1, 0.6, 0.2, 1e-4),
    "amazon-computers": (0.01, 0.01, 0.05, 0.2, 0.0),
    "amazon-photo": (0.05, 0.01, 0.1, 0.4, 5e-4),
}
"""gamma, lr, alpha, threshold, weight decay."""


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_settings(dataset: str) -> None:
    found: Any = resolve("cohop", dataset=dataset, split="cpf-lcc-20-30")
    got = (found.smoothness, found.lr, found.decay, found.threshold, found.weight_decay)
    assert got == PUBLISHED[dataset]
    assert (found.epochs, found.patience, found.rounds, found.depth, found.model["layers"]) == (200, 50, 5, 10, 1)


def test_published_settings_of_the_large_graphs() -> None:
    arxiv: Any = resolve("cohop", dataset="ogbn-arxiv")
    products: Any = resolve("cohop", dataset="ogbn-products")
    assert (arxiv.reach, arxiv.decay, arxiv.model["hidden"], arxiv.rounds, arxiv.patience) == (
        "walks",
        0.6,
        512,
        1,
        100,
    )
    assert (products.smoothness, products.lr, products.batch_size, products.epochs) == (0.5, 0.001, 2000, 1)
