"""Pairs along edges: sums over pairs against a loop in double precision, sampling, reliability and its power."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph, Features, SparseFeatures
from support.pair_loops import CLASSES, NODES, graph, loop_kl, pairs, random

from gkdbench.data.nodes import Space
from gkdbench.nn.gcn import GCNConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks import pairs as _pairs
from gkdbench.training.blocks.adversarial import densified
from gkdbench.training.blocks.pairs import (
    PairTargets,
    Reliability,
    drawn,
    entropies,
    fitted_power,
    noise_sensitivity,
    pair_kl,
    without_loops,
)


def test_loops_are_left_out_and_nothing_else() -> None:
    with_loops = graph()
    edges = without_loops(with_loops)
    wanted = [(i, j) for i, j, _ in pairs(with_loops)[: with_loops.num_edges] if i != j]
    assert [(i, j) for i, j, _ in pairs(edges)[: edges.num_edges]] == wanted
    assert edges.num_edges < with_loops.num_edges
    assert int(edges.indptr[-1]) == edges.num_edges


@pytest.mark.parametrize("tau", [0.8, 1.0, 2.5])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_sum_over_pairs_is_that_of_a_loop(tau: float, sampled: bool) -> None:
    edges = without_loops(graph())
    weight = drawn(torch.full((edges.num_edges,), 0.5, dtype=torch.float64), key=7) if sampled else None
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1).requires_grad_()
    asked = PairTargets(edges, teacher, tau=tau).over(weight)
    got = pair_kl(student, asked, tau=tau)
    wanted = loop_kl(student, teacher, pairs(edges, weight), tau)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (got, wanted)))
    assert torch.autograd.gradcheck(lambda s: pair_kl(s, asked, tau=tau), (student,))


def test_a_mini_batch_has_the_pairs_of_its_students() -> None:
    edges, batch = without_loops(graph()), torch.tensor([4, 0, NODES - 1])
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1)
    asked = PairTargets(edges, teacher).over()
    mine = [pair for pair in pairs(edges) if pair[0] in batch.tolist()]
    torch.testing.assert_close(pair_kl(student[batch], asked[batch]), loop_kl(student, teacher, mine, 1.0))


def test_single_precision_keeps_small_divergences() -> None:
    """The entropies of many pairs cancel; what is left of a student near its teacher is still right to 1e-5."""
    edges = without_loops(graph())
    teacher = random(1, CLASSES).repeat(NODES, 1)
    student = teacher + 1e-2 * random(NODES, CLASSES, seed=1)
    got = pair_kl(student.float(), PairTargets(edges, teacher.float()).over())
    assert got.item() == pytest.approx(loop_kl(student, teacher, pairs(edges), 1.0).item(), abs=1e-6)


def test_the_teacher_gets_no_gradient() -> None:
    teacher, student = random(NODES, CLASSES).requires_grad_(), random(NODES, CLASSES, seed=1).requires_grad_()
    pair_kl(student, PairTargets(without_loops(graph()), teacher).over()).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None


def test_entropies() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0], [math.log(2), 0.0, -math.inf]])
    third = math.log(3) - 2 / 3 * math.log(2)
    torch.testing.assert_close(entropies(logits[:2]), torch.tensor([math.log(3), 0.0]))
    torch.testing.assert_close(entropies(logits[2:, :2]), torch.tensor([third]))


def inputs(sparse: bool) -> Inputs:
    dense = random(NODES, 6, dtype=torch.float32).relu()
    space = Space("pairs", torch.arange(NODES))
    features: Any = dense
    if sparse:
        place = dense.nonzero()
        pattern = CSRGraph.from_edge_index(place.T.flip(0), (NODES, 6))
        features = SparseFeatures(pattern, dense[place[:, 0], place[:, 1]])
    return Inputs(space, space, graph(), features)


@torch.no_grad()
def test_sensitivity_is_the_move_of_the_entropy_over_its_largest() -> None:
    teacher = GCNConfig(hidden=8, layers=2).build(6, CLASSES, Randomness(0)).eval()
    given = inputs(sparse=False)
    clean = teacher(given.features, given.graph)
    rho = noise_sensitivity(teacher, given, clean, key=11)
    noise = torch.empty(NODES, 6).normal_(generator=torch.Generator().manual_seed(11))
    moved = (entropies(teacher(densified(given.features) + noise, given.graph)) - entropies(clean)).abs()
    torch.testing.assert_close(rho, moved / moved.max())
    assert rho.max() == 1
    assert not torch.equal(rho, noise_sensitivity(teacher, given, clean, key=12))


@torch.no_grad()
def test_sparse_features_are_made_dense_for_noise_once(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = GCNConfig(hidden=8, layers=2).build(6, CLASSES, Randomness(0)).eval()
    dense, sparse = inputs(sparse=False), inputs(sparse=True)
    kept = densified(sparse.features).clone()
    made = []

    def counted(features: Features) -> torch.Tensor:
        made.append(features)
        return densified(features)

    monkeypatch.setattr(_pairs, "densified", counted)
    clean = teacher(dense.features, dense.graph)
    first, second = (noise_sensitivity(teacher, given, clean, key=11) for given in (dense, sparse))
    torch.testing.assert_close(first, second)
    assert len(made) == 2
    assert torch.equal(densified(sparse.features), kept)


def test_a_teacher_that_noise_does_not_move_keeps_every_pair() -> None:
    teacher = GCNConfig(hidden=8, layers=2).build(6, CLASSES, Randomness(0)).eval()
    for parameter in teacher.parameters():
        parameter.data.zero_()
    given = inputs(sparse=False)
    rho = noise_sensitivity(teacher, given, torch.zeros(NODES, CLASSES), key=0)
    assert torch.equal(Reliability(rho).keep(), torch.ones(NODES))


def test_pairs_are_kept_by_the_reliability_of_the_teacher_node() -> None:
    """rho = 0 keeps all of a node's pairs, rho = 1 none, and rho = 1/2 with a = 1 about half."""
    count = 4000
    source = torch.arange(3).repeat_interleave(count)
    edges = CSRGraph.from_edge_index(torch.stack([source, torch.full_like(source, 3)]), 4)
    rating = Reliability(torch.tensor([0.0, 0.5, 1.0, 0.3]))
    kept = rating.sample(edges, key=5)
    share = [kept[edges.index == node].mean().item() for node in range(3)]
    assert share[0] == 1
    assert share[1] == pytest.approx(0.5, abs=4 * 0.5 / count**0.5)
    assert share[2] == 0
    assert torch.equal(kept, rating.sample(edges, key=5))
    assert not torch.equal(kept, rating.sample(edges, key=6))
    rating.power = 3.0
    assert rating.keep().tolist() == pytest.approx([1.0, 1 - 0.125, 0.0, 1 - 0.027])


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_fit_finds_the_power_that_made_the_agreements(power: float) -> None:
    """Agreements at rate 1 - (x + 0.05)^a of each bin's left border x, scaled to [0, 1] as the fit does."""
    bins, count = 10, 2000
    x = np.arange(bins) / bins + 0.05
    share = 1 - x**power
    share = (share - share.min()) / (share.max() - share.min())
    rho = torch.from_numpy(np.arange(bins) / bins + 0.5 / bins).repeat_interleave(count)
    agree = torch.cat([torch.arange(count) < round(count * part) for part in share])
    found = fitted_power(rho, agree, bins=bins)
    assert found is not None
    candidates = np.exp(np.linspace(np.log(0.01), np.log(100), 4001))
    squares = ((1 - x[None] ** candidates[:, None] - share) ** 2).sum(1)
    assert found == pytest.approx(candidates[squares.argmin()], rel=5e-3)


def test_empty_bins_are_left_out_but_by_the_release() -> None:
    """Nodes in the lower half of rho only: the release reads the empty upper half as disagreement."""
    rho = torch.linspace(0, 0.499, 500).double()
    agree = torch.arange(500) % 5 >= torch.arange(500) // 100
    kept, released = (fitted_power(rho, agree, bins=10, empty_bins=empty) for empty in (False, True))
    assert kept is not None
    assert released is not None
    place = np.arange(5) / 10 + 0.05
    share = 1 - np.arange(5) / 4
    squares = [((1 - place**a - share) ** 2).sum() for a in (kept, released)]
    assert squares[0] < squares[1]
    assert kept != pytest.approx(released, rel=1e-3)


def test_no_power_is_fitted_to_equal_shares() -> None:
    rho = torch.linspace(0, 1, 100)
    assert fitted_power(rho, torch.ones(100, dtype=torch.bool), bins=10) is None
    rating = Reliability(rho, power=2.0)
    rating.update(torch.ones(100, dtype=torch.bool))
    assert rating.power == 2.0


def test_the_power_moves_by_momentum() -> None:
    rho, agree = torch.linspace(0, 1, 100), torch.arange(100) < 60
    rating = Reliability(rho, power=2.0, momentum=0.9, bins=10)
    rating.update(agree)
    fitted = fitted_power(rho, agree, bins=10)
    assert fitted is not None
    assert rating.power == pytest.approx(0.9 * 2.0 + 0.1 * fitted)
