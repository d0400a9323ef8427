"""HGMD: pairs by hardness, its three targets against loops, its release, limits without transfer, its settings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.pair_loops import CLASSES, NODES, graph, kl, loop_kl, pairs, random

from gkdbench.methods.gnn_to_mlp import hgmd
from gkdbench.methods.gnn_to_mlp.hgmd import cosines, mixed, weighed
from gkdbench.nn.random import Randomness
from gkdbench.testing.method_case import identical
from gkdbench.training.blocks.pairs import PairTargets, drawn, entropies, pair_kl, without_loops
from gkdbench.training.resolve import recipes, resolve

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}


def sampled(seed: int = 7) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Edges, which are kept, and a share in (0, 1) for each."""
    edges = without_loops(graph())
    half = torch.full((edges.num_edges,), 0.5, dtype=torch.float64)
    return edges, drawn(half, seed), random(edges.num_edges, seed=seed).sigmoid()


def same_loss_and_gradient(asked: torch.Tensor, student: torch.Tensor, wanted: Any, tau: float) -> None:
    got = pair_kl(student, asked, tau=tau)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (got, wanted)))


@pytest.mark.parametrize("tau", [0.9, 1.3])
@pytest.mark.parametrize("at_once", [3, 1000])
def test_mixed_targets_are_those_of_a_loop(tau: float, at_once: int) -> None:
    edges, keep, share = sampled()
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1).requires_grad_()
    p, total = (teacher / tau).softmax(1), torch.zeros((), dtype=torch.float64)
    shares = share.tolist() + [1.0] * NODES
    found = [(i, j, w, s) for (i, j, w), s in zip(pairs(edges, keep), shares, strict=True)]
    for i, j, weight, w in found:
        total = total + weight * kl((1 - w) * p[i] + w * p[j], (student[i] / tau).softmax(0))
    asked = mixed(PairTargets(edges, teacher, tau=tau), keep, share, at_once=at_once)
    same_loss_and_gradient(asked, student, total / sum(weight for _, _, weight, _ in found), tau)


def test_weighed_targets_have_mean_weight_one_at_every_node() -> None:
    edges, keep, weight = sampled()
    teacher, student = random(NODES, CLASSES), random(NODES, CLASSES, seed=1).requires_grad_()
    kept = [(i, j, w) for (i, j, k), w in zip(pairs(edges, keep), weight.tolist() + [1.0] * NODES, strict=True) if k]
    of_node = {i: [w for a, _, w in kept if a == i] for i in range(NODES)}
    scaled = [(i, j, w * len(of_node[i]) / sum(of_node[i])) for i, j, w in kept]
    asked = weighed(PairTargets(edges, teacher), keep, weight)
    torch.testing.assert_close(asked[:, -1], torch.tensor([len(of_node[i]) for i in range(NODES)]).double())
    same_loss_and_gradient(asked, student, loop_kl(student, teacher, scaled, 1.0), 1.0)


def test_cosines_in_parts() -> None:
    p, edges = random(NODES, CLASSES).softmax(1), graph()
    i, j = edges.row.long(), edges.index.long()
    wanted = torch.nn.functional.cosine_similarity(p[i], p[j])
    for at_once in (4, 1000):
        torch.testing.assert_close(cosines(p, i, j, at_once=at_once), wanted)
    assert cosines(p, i[:0], j[:0]).shape == (0,)


def given(bench: Any, **overrides: Any) -> tuple[Any, torch.Tensor, Any]:
    """The pairs of a method on a small problem, the teacher's logits, the view."""
    method: Any = resolve("hgmd", {"model": STILL, "epochs": 11, **overrides})
    view = bench.given("tran").view
    logits = bench.workshop.teachers(method, bench.problem("tran"))["teacher"].read(view).logits.value
    return hgmd._Pairs(method, view, logits, 0.0), logits, view


@pytest.mark.parametrize("epoch", [2, 6, 11])
def test_the_probability_is_that_of_the_formula(bench: Any, epoch: int) -> None:
    part, teacher, view = given(bench, hardness=5.0)
    student = random(len(view.items), 3, dtype=torch.float32)
    got = part._probability(epoch, student)
    edges = without_loops(view.inputs.graph)
    p = teacher.softmax(1)
    of_teacher, of_student = (entropies(z) / entropies(z).max() for z in (teacher, student))
    rate = 5.0 * 100 ** (-(epoch - 1) / 10)
    for edge in range(0, edges.num_edges, 37):
        i, j = int(edges.row[edge]), int(edges.index[edge])
        cosine = float((p[i] @ p[j]) / (p[i].norm() * p[j].norm()))
        power = rate * cosine * math.sqrt(float(of_teacher[i] * of_student[i])) / float(of_teacher[j])
        assert got[edge].item() == pytest.approx(1 - math.exp(-power), rel=1e-4)
    assert ((got >= 0) & (got <= 1)).all()


@pytest.mark.parametrize("mode", ["mixup", "vanilla", "weight"])
def test_the_first_epoch_has_all_edges_and_later_ones_fewer(bench: Any, mode: str) -> None:
    part, teacher, view = given(bench, mode=mode, hardness=1.0)
    randomness, student = Randomness(0), random(len(view.items), 3, dtype=torch.float32)
    losses = []
    for epoch, share in ((1, 1.0), (10, None)):
        term = part.begin(epoch, randomness, lambda: student)
        losses.append(float(term(teacher)["kl"]))
        assert part.kept == share or (share is None and 0 < part.kept < 0.9)
    assert losses[0] > 0
    assert losses[0] != losses[1]


def test_smoothing_before_mixing_is_smoothing_after() -> None:
    logits, w = random(2, CLASSES), 0.3
    p, by = logits.softmax(1), 1e-2
    after = (1 - w) * p[0] + w * p[1] + by
    before = hgmd._smoothed(logits, by).softmax(1)
    torch.testing.assert_close((1 - w) * before[0] + w * before[1], after / after.sum())
    assert hgmd._smoothed(logits, 0.0) is logits


def test_the_release_smooths_off_the_citation_sets_and_lets_ties_win(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = hgmd._smoothed
    monkeypatch.setattr(hgmd, "_smoothed", lambda logits, by: seen.append(by) or original(logits, by))  # type: ignore[func-returns-value]
    for options in ({}, {"variant": "as_released"}, {"variant": "as_released", "mode": "vanilla"}):
        bench.run("hgmd", epochs=1, model=STILL, **options)
    monkeypatch.setattr(hgmd, "CITATIONS", (bench.given("tran").view.dataset,))
    bench.run("hgmd", epochs=1, model=STILL, variant="as_released")
    assert seen == [0.0, 1e-6, 0.0, 0.0]
    ties = {variant: resolve("hgmd", {"variant": variant}).selection_rule() for variant in ("corrected", "as_released")}
    assert ties == {"corrected": "loss", "as_released": "later"}


@pytest.mark.parametrize("setting", ["tran", "ind"])
def test_with_all_weight_on_labels_it_is_the_mlp(bench: Any, setting: str) -> None:
    options = {"model": STILL, "epochs": 2}
    student = bench.run("hgmd", setting, label_weight=1.0, **options)
    alone = bench.run("mlp", setting, batch_size=None, lr=0.01, weight_decay=5e-4, **options)
    assert student.selected == alone.selected
    assert identical(student.final["model"], alone.final["model"])
    assert not identical(bench.final("hgmd", setting, label_weight=0.5, **options), alone.final["model"])


def test_terms_add_up(bench: Any) -> None:
    run = bench.run("hgmd", label_weight=0.3, model=STILL)
    arrays = run.scored.arrays
    np.testing.assert_allclose(arrays["terms/kl"] + arrays["terms/ce"], arrays["terms/loss"], rtol=1e-5)
    assert 0 < run.outcome.extra["kept_edges"] < 1


PUBLISHED = {
    "cora": (0.01, 5e-4, 0.1, 0.9, 5.0, 0.3, 3, 512, 0.3),
    "citeseer": (0.01, 5e-4, 0.0, 1.1, 5.0, 0.4, 2, 256, 0.6),
    "pubmed": (0.01, 5e-4, 0.0, 0.9, 10.0, 0.5, 3, 256, 0.6),
    "coauthor-cs": (0.01, 5e-3, 0.1, 1.0, 1.0, 0.4, 2, 512, 0.6),
    "coauthor-physics": (0.01, 5e-4, 0.2, 1.2, 5.0, 0.3, 2, 256, 0.5),
    "amazon-photo": (0.01, 5e-4, 0.2, 0.9, 10.0, 0.5, 2, 512, 0.5),
    "ogbn-arxiv": (0.005, 0.0, 0.0, 0.8, 10.0, 0.5, 3, 2048, 0.3),
}
"""Of the release, with a GCN teacher: lr, decay, lambda, tau, a, b, layers, width, dropout of the student."""


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_settings(dataset: str) -> None:
    found: Any = resolve("hgmd", {"teacher": "gcn"}, dataset=dataset, split="planetoid-public")
    model = found.model
    got = (found.lr, found.weight_decay, found.label_weight, found.tau, found.hardness, found.beta)
    assert (*got, model["layers"], model["hidden"], model["dropout"]) == PUBLISHED[dataset]
    assert model["norm"] == ("batch" if dataset == "ogbn-arxiv" else "none")
    assert (found.mode, found.recipe) == ("mixup", "wu2024_hgmd_tran_gcn")
    assert recipes("hgmd") == ["wu2024_hgmd_tran_gcn"]
    assert resolve("hgmd", {"teacher": "sage"}, dataset=dataset, split="planetoid-public").recipe is None
