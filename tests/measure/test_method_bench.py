"""Whole methods and the re-implemented official code: both sides compute the same, and only then is there a ratio."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from gkdkernels import CSRGraph, SparseFeatures, structure_kl

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.operators.bench import BenchSettings
from gkdbench.measure.operators.graphs import POWER_LAWS, power_law
from gkdbench.measure.operators.problem import normal
from gkdbench.measure.ratios import Ratio
from gkdbench.measure.timers import CpuClock
from gkdbench.measure.training_steps import latency_vs_k as latency
from gkdbench.measure.training_steps.gnn_steps import StepData, dense_features
from gkdbench.measure.training_steps.latency_vs_k import latency_against_k, sizes
from gkdbench.measure.training_steps.official_code import plain_structure_kl
from gkdbench.measure.training_steps.pairwise import TOLERANCE, PairwiseTiming, TimingComparison
from gkdbench.measure.training_steps.whole_methods import (
    RBM,
    _adams,
    _aligned,
    _fused_structure,
    _gats,
    _round,
    alignahead,
    mutual_loss,
    rbm,
    structure_memory,
)
from gkdbench.nn.gat import GAT
from gkdbench.nn.model import Trace
from gkdbench.nn.rbm import FoldedRbM

CPU = torch.device("cpu")
SETTINGS = BenchSettings(rounds=1, budget_s=0.0, slow=False, memory=False)


@pytest.fixture(scope="module")
def data() -> StepData:
    """300 nodes with 5 of 40 features each."""
    graph = power_law(POWER_LAWS["power-law-tiny"])
    drawn = torch.rand(graph.num_dst, 40, generator=torch.Generator().manual_seed(0))
    columns = drawn.argsort(1)[:, :5].sort(1).values
    place = CSRGraph(torch.arange(0, 5 * graph.num_dst + 1, 5), columns.flatten(), 40)
    value = normal(place.num_edges, seed=1, dtype=torch.float32, device=CPU).abs()
    return StepData("tiny", graph, SparseFeatures(place, value), torch.arange(graph.num_dst) % 3, 3)


@pytest.mark.parametrize("name", RBM)
def test_rbm_on_both_sides_is_the_same(data: StepData, name: str) -> None:
    duels = list(rbm(data, RBM[name]))
    assert [duel.limit is None for duel in duels].count(True) == 2
    compiled = [duel for duel in duels if duel.what.endswith("layers by numba")]
    assert len(compiled) == 3 * (find_spec("numba") is not None)
    assert len(duels) == 9 + len(compiled)
    assert max(duel.error for duel in duels) < 1e-4
    for duel in duels[:2]:
        duel.ours(), duel.theirs()
    dense_only = list(rbm(replace(data, features=dense_features(data.features)), RBM[name]))
    assert len(dense_only) == 7 + len(compiled)


def test_aligned_students_on_both_sides_are_the_same(data: StepData) -> None:
    duels = list(alignahead(data))
    assert [duel.what.endswith("by numba") for duel in duels] == [False, True][: 1 + (find_spec("numba") is not None)]
    for duel in duels:
        assert duel.error < 1e-4
        assert duel.limit == 0.25
        contest = duel.compare(CpuClock(), SETTINGS)
        assert contest.ratio is not None
        assert contest.ratio.n == 1


def test_students_in_turn_have_the_losses_of_steps_that_compute_all_anew(data: StepData) -> None:
    x, graph = dense_features(data.features), data.graph.prepare()

    def call(model: GAT) -> Trace:
        return model.trace(x, graph)

    ours, theirs = ([copy.deepcopy(m) for m in _gats(data)] for _ in range(2))
    optimisers, others = _adams(ours), _adams(theirs)
    for _ in range(2):
        wanted = []
        for (student, other), optimiser in zip((theirs, theirs[::-1]), others, strict=True):
            optimiser.zero_grad()
            loss = _aligned(call, student, other, data, _fused_structure)
            loss.backward()
            optimiser.step()
            wanted.append(float(loss.detach()))
        assert _round(call, ours, optimisers, data, _fused_structure) == wanted


def test_the_plain_structure_loss_is_the_operator(data: StepData) -> None:
    student, teacher = (normal(300, 8, seed=seed, dtype=torch.float64, device=CPU) for seed in (2, 3))
    fused = structure_kl(data.graph, student, teacher, kernel="laplace-exp", sigma=2.0)
    torch.testing.assert_close(plain_structure_kl(data.graph, student, teacher, 2.0), fused)


def test_memory_and_the_loss_alone() -> None:
    memory = structure_memory(quick=True)
    assert memory.ratio is not None
    assert memory.ratio.value < 0.5  # the form that holds edges x features is larger even on a tiny graph
    loss = mutual_loss(CPU, CpuClock(), MachinePeaks(1e10, 1e11), SETTINGS, quick=True)
    assert (loss.limit, loss.ratio is not None) == (0.4, True)


def test_sides_that_differ_have_no_ratio() -> None:
    calls = itertools.count()
    duel = PairwiseTiming("x", "y", "z", 0.5, 2 * TOLERANCE, lambda: next(calls), lambda: next(calls))
    contest = duel.compare(CpuClock(), SETTINGS)
    assert (contest.ratio, contest.verdict, next(calls)) == (None, "not measured", 0)


@pytest.mark.parametrize(("limit", "value", "verdict"), [(0.5, 0.5, "met"), (0.5, 0.6, "not met"), (None, 9.0, "")])
def test_verdicts(limit: float | None, value: float, verdict: str) -> None:
    assert TimingComparison("x", "y", "z", limit, 0.0, Ratio(value, value, value, 5)).verdict == verdict


def test_a_duel_times_both_sides(data: StepData) -> None:
    seen = SimpleNamespace(ours=0, theirs=0)

    def count(side: str) -> None:
        setattr(seen, side, getattr(seen, side) + 1)

    contest = PairwiseTiming("x", "y", "z", None, 0.0, lambda: count("ours"), lambda: count("theirs")).compare(
        CpuClock(), SETTINGS
    )
    assert contest.ratio is not None
    assert min(seen.ours, seen.theirs) > 1


def test_latency_is_told_for_every_k(data: StepData) -> None:
    config = replace(RBM["pubmed"], hidden=16, experts=3)
    assert sizes(data) == (1, 300)
    curves = list(latency_against_k(data, config, (1, 300), CpuClock(), SETTINGS))
    assert [(curve.data, curve.rows, curve.experts) for curve in curves] == [("tiny", 1, 3), ("tiny", 300, 3)]
    for curve in curves:
        assert [point.k for point in curve.points] == [1, 2, 3]
        assert max(point.error for point in curve.points) < 1e-4
        first = curve.points[0]
        assert first.ratio is not None and (first.macs, first.ratio.value) == (1.0, 1.0)
        # two layers, 40 -> 16 -> 3, and a router of three cosines before each
        assert curve.points[2].macs == pytest.approx((3 * (640 + 48) + 3 * 56) / (640 + 48 + 3 * 56))


def test_a_k_that_computes_something_else_has_no_ratio(data: StepData, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(FoldedRbM):
        def forward(self, *inputs: object) -> torch.Tensor:
            return super().forward(*inputs) * (1.0 if self.k < 2 else 1.01)

    monkeypatch.setattr(latency, "FoldedRbM", Wrong)
    (curve,) = latency_against_k(data, replace(RBM["pubmed"], hidden=16, experts=2, k=2), (300,), CpuClock(), SETTINGS)
    assert [point.ratio is None for point in curve.points] == [False, True]
