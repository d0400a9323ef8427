"""MuGSI and GLNN on graphs: terms against their formulas, solo runs bit for bit, and the released defects."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph
from torch import Tensor

from gkdbench.data.splits import prepare
from gkdbench.errors import UserError
from gkdbench.methods.graph_tasks._granularities import (
    both_ways,
    cluster_loss,
    graph_loss,
    graph_walks,
    node_positions,
    path_loss,
)
from gkdbench.protocol.view_io import read_bundle
from gkdbench.testing.method_case import identical
from gkdbench.testing.problems import order_within_graphs, renumbered, small_graphs, small_problem
from gkdbench.testing.runs import Workshop, small_method
from gkdbench.training.blocks.louvain import Clusters, louvain
from gkdbench.training.resolve import resolve

STUDENT = {"hidden": 8, "readout": "attention"}
OPTIONS: dict[str, Any] = {"model": STUDENT, "epochs": 3, "batch_size": 20, "lr": 0.01}
SILENT = {"graph_weight": 0.0, "cluster_weight": 0.0, "path_weight": 0.0}


def two_graphs(seed: int = 0) -> tuple[Tensor, Tensor, Clusters, Tensor]:
    """Nodes of a student and a teacher (12 of one graph, 8 of another), clusters 3 and 2, borders; double precision."""
    draw = torch.Generator().manual_seed(seed)
    student = torch.randn(20, 4, generator=draw, dtype=torch.float64)
    teacher = torch.randn(20, 6, generator=draw, dtype=torch.float64)
    of = torch.tensor([0, 1, 2] * 4 + [0, 1] * 4)
    return student, teacher, Clusters(of, torch.tensor([3, 2])), torch.tensor([0, 12, 20])


def test_graph_loss_is_that_of_unit_vectors() -> None:
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (student, teacher))
    assert float(graph_loss(student, teacher)) == pytest.approx(((a - b) ** 2).mean(), rel=1e-12)
    assert float(graph_loss(7 * student, student)) == pytest.approx(0.0, abs=1e-30)


def test_cluster_loss_compares_cosines_of_pooled_clusters() -> None:
    """Of the first graph alone: the second has two clusters and is skipped."""
    student, teacher, clusters, borders = two_graphs()

    def cosines(x: Tensor) -> np.ndarray:
        pooled = np.stack([x[:12].numpy()[clusters.of[:12] == c].sum(0) for c in range(3)])
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit @ unit.T

    wanted = 0.5 * ((cosines(student) - cosines(teacher)) ** 2).sum()
    got = cluster_loss(student, teacher, clusters.of, clusters.count, borders)
    assert float(got) == pytest.approx(wanted, rel=1e-12)
    assert float(cluster_loss(student, student, clusters.of, clusters.count, borders)) < 1e-30


def test_cluster_loss_is_a_mean_over_the_graphs_that_count() -> None:
    student, teacher, clusters, borders = two_graphs()
    more = [torch.cat([x, x[:12].flip(0)]) for x in (student, teacher)]
    of = torch.cat([clusters.of, clusters.of[:12].flip(0)])
    doubled = cluster_loss(*more, of, torch.tensor([3, 2, 3]), torch.tensor([0, 12, 20, 32]))
    once = cluster_loss(student, teacher, clusters.of, clusters.count, borders)
    torch.testing.assert_close(doubled, once, rtol=1e-12, atol=0)
    none = cluster_loss(student.requires_grad_(), teacher, clusters.of, torch.tensor([2, 2]), borders)
    assert none.item() == 0.0 and not torch.autograd.grad(none, student)[0].any()


def test_path_loss_is_the_kl_of_softmaxed_similarities() -> None:
    student, teacher, _, _ = two_graphs()
    walks = torch.tensor([[0, 1, 2, 1], [5, 4, 5, 6]], dtype=torch.int32)

    def softmax(x: np.ndarray, walk: list[int]) -> np.ndarray:
        scores = np.array([x[walk[0]] @ x[node] for node in walk[1:]])
        return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()

    wanted = 0.0
    for walk in walks.tolist():
        p, q = softmax(teacher.numpy(), walk), softmax(student.numpy(), walk)
        wanted += float((p * np.log(p / q)).sum()) / 2
    assert float(path_loss(student, teacher, walks)) == pytest.approx(wanted, rel=1e-10)
    assert float(path_loss(student, student, walks)) == pytest.approx(0.0, abs=1e-12)
    assert float(path_loss(student, teacher, walks[:0])) == 0.0


def test_gradients_are_those_of_finite_differences() -> None:
    student, teacher, clusters, borders = two_graphs(3)
    student.requires_grad_()
    walks = torch.tensor([[0, 1, 2, 1], [13, 14, 13, 19]])
    assert torch.autograd.gradcheck(
        lambda x: cluster_loss(x, teacher, clusters.of, clusters.count, borders) + path_loss(x, teacher, walks), student
    )
    assert torch.autograd.gradcheck(lambda x: graph_loss(x[:, :4], teacher[:, :4]), student)


def test_walks_stay_in_their_graph_and_follow_edges(bench: Any) -> None:
    inputs = bench.given("graph").view.inputs
    batch = inputs.take(torch.tensor([3, 0, 5]))
    walks = graph_walks(batch.graph, batch.segments, 20, 8, torch.Generator().manual_seed(0)).long()
    assert walks.shape == (60, 8)
    home = torch.searchsorted(batch.segments, walks, right=True) - 1
    assert bool((home == home[:, :1]).all()) and home[:, 0].bincount().tolist() == [20, 20, 20]
    edges = set(zip(batch.graph.index.tolist(), batch.graph.row.tolist(), strict=True))
    assert all((a, b) in edges for walk in walks.tolist() for a, b in pairwise(walk))


def test_clusters_are_networkxs_and_do_not_depend_on_other_graphs(bench: Any) -> None:
    inputs = bench.given("graph").view.inputs
    clusters = louvain(inputs, 7)
    batch = inputs.take(torch.tensor([4, 2]))
    again = louvain(batch, 7)
    at = node_positions(inputs, torch.tensor([4, 2]), batch.segments)
    assert torch.equal(again.count, clusters.count[[4, 2]])
    assert torch.equal(inputs.space.ids[at], batch.space.ids)
    for graph in (4, 2):
        first, last = inputs.segments[graph : graph + 2].tolist()
        assert clusters.of[first:last].unique().numel() == int(clusters.count[graph])
    drawn = networkx.Graph([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)])
    assert len(networkx.community.louvain_communities(drawn, seed=7)) == 2


@pytest.mark.parametrize("encoding", [0, 3])
def test_without_transfer_it_is_the_solo_run(bench: Any, encoding: int) -> None:
    """All weights 0 is the node MLP with a readout trained on labels, and without encodings that of `teacher`."""
    alone = bench.final("glnn_graph", "graph", kl_weight=0.0, encoding=encoding, schedule="constant", **OPTIONS)
    student = bench.final("mugsi", "graph", kl_weight=0.0, encoding=encoding, schedule="constant", **SILENT, **OPTIONS)
    assert identical(student, alone)
    if not encoding:
        plain = {"backbone": "graph_mlp", "weight_decay": 0.0, **OPTIONS}
        assert identical(bench.final("teacher", "graph", **plain), alone)
    assert not identical(bench.final("glnn_graph", "graph", encoding=encoding, **OPTIONS), alone)


def test_mugsi_without_structure_is_glnn_on_graphs(bench: Any) -> None:
    wanted = bench.final("glnn_graph", "graph", **OPTIONS)
    assert identical(bench.final("mugsi", "graph", **SILENT, **OPTIONS), wanted)


def test_every_term_is_told_and_reaches_the_student(bench: Any) -> None:
    weights = {"graph_weight": 1.0, "cluster_weight": 1.0, "path_weight": 1.0}
    run = bench.run("mugsi", "graph", **weights, **OPTIONS)
    terms = {name.removeprefix("terms/") for name in run.scored.arrays if name.startswith("terms/")}
    assert terms == {"loss", "ce", "kl", "graph", "cluster", "path", "epoch"}
    assert all((run.scored.arrays[f"terms/{name}"] > 0).all() for name in terms)
    for silent in weights:
        other = bench.final("mugsi", "graph", **{**weights, silent: 0.0}, **OPTIONS)
        assert not identical(other, run.final["model"])


@pytest.mark.parametrize("name", ["glnn_graph", "mugsi"])
def test_the_release_trains_with_its_own_rate(bench: Any, name: str) -> None:
    slow, fast = ({**OPTIONS, "lr": rate} for rate in (1e-4, 8e-3))
    released = bench.final(name, "graph", variant="as_released", **slow)
    assert identical(bench.final(name, "graph", variant="as_released", **fast), released)
    assert not identical(bench.final(name, "graph", **slow), bench.final(name, "graph", **fast))


def test_the_release_projects_graphs_by_the_nodes_map(bench: Any) -> None:
    """The graph term alone: corrected, the nodes' map is left as it was; released, the two are one."""
    options = {**OPTIONS, "lr": 8e-3, "graph_weight": 5.0, "cluster_weight": 0.0, "path_weight": 0.0}
    corrected = bench.final("mugsi", "graph", **options)
    assert not identical(bench.final("mugsi", "graph", variant="as_released", **options), corrected)


def test_a_test_fold_for_validation_is_a_split_of_its_own() -> None:
    """The release validates on the test fold: here only the audit split does, in every form of every method."""
    task = small_graphs().with_(name="proteins")
    fold, audit = (prepare(task, split, 3).split for split in ("tu-10fold", "tu-10fold-testfold"))
    assert not set(fold.val) & set(fold.test)
    assert np.array_equal(audit.val, audit.test) and np.array_equal(audit.test, fold.test)


def test_walks_want_edges_in_both_directions(bench: Any) -> None:
    given = bench.given("graph")
    assert both_ways(given.view.inputs.graph)
    one_way = small_graphs()
    keep = one_way.graph.index < one_way.graph.row
    edges = torch.stack([one_way.graph.index[keep], one_way.graph.row[keep]])
    problem = prepare(one_way.with_(graph=CSRGraph.from_edge_index(edges, one_way.num_nodes)), "random-80-10-10")
    run = bench.workshop.run(resolve("mugsi", {"epochs": 1, "model": STUDENT}), problem)
    assert run.outcome.status == "error" and "path_weight=0" in (run.outcome.reason or "")
    assert not both_ways(read_bundle(bench.workshop.view(problem)[0]).view.inputs.graph)


def test_published_rows_name_their_students() -> None:
    labels = {
        name: dataclasses.replace(resolve("glnn_graph", {"recipe": name})).label
        for name in ("yao2024_mlp", "yao2024_mlp_lape", "yao2024_gamlp", "yao2024_gamlp_lape")
    }
    assert list(labels.values()) == [
        "GLNN, MLP 64", "GLNN, MLP 64 + LaPE", "GLNN, GA-MLP 64", "GLNN, GA-MLP 64 + LaPE"
    ]  # fmt: skip
    method: Any = resolve("mugsi", {"recipe": "yao2024_gamlp"})
    assert method.requires()["teacher"].recipe == "yao2024_mugsi_gin"
    assert (method.lr, method.epochs, method.patience, method.batch_size) == (0.008, 350, 60, 32)
    assert (method.graph_weight, method.cluster_weight, method.path_weight) == (0.01, 0.01, 1e-4)
    with pytest.raises(UserError, match="kl_weight: expected"):
        resolve("mugsi", {"kl_weight": -1.0})


@pytest.mark.parametrize("kl_weight", [0.0, 1.0])
def test_the_order_of_nodes_decides_nothing_but_signs_next_to_zero(tmp_path: Path, kl_weight: float) -> None:
    """After one step of Adam, weights with nodes in another order differ by rounding, but for a few in ten thousand:
    those whose gradient is so small that rounding decides its sign."""
    problem, workshop = small_problem("graph"), Workshop(tmp_path, epochs=1)
    moved = renumbered(problem, order_within_graphs(problem.task, seed=2))
    method = small_method("glnn_graph", {"kl_weight": kl_weight}, epochs=1, quiet=True)
    first, second = (workshop.run(method, p, stop_early=False, quiet=True).final["model"] for p in (problem, moved))
    apart = torch.cat([(first[name].double() - second[name].double()).abs().flatten() for name in first])
    assert (apart > 1e-4).double().mean() < 5e-4
