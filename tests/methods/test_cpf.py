"""CPF: propagation against a loop, what is clamped, unseen nodes, refusals, what its release does otherwise."""

from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph, MixedFeatures, SparseFeatures

from gkdbench.data.nodes import Space
from gkdbench.errors import UnknownName
from gkdbench.methods.gnn_to_mlp import cpf
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.renumbering import renumbered as renumbered_graphs
from gkdbench.testing.method_case import relative_gap
from gkdbench.testing.problems import renumbered
from gkdbench.testing.runs import small_method
from gkdbench.training.blocks.binarised import binarised
from gkdbench.training.models import backbone_config
from gkdbench.training.resolve import recipes, resolve

MODEL = {"hidden": 8, "layers": 2, "dropout": 0.5}


def module(bench: Any, setting: str = "tran", **overrides: Any) -> tuple[Any, Any]:
    method: Any = resolve("cpf", {"steps": 3, "model": MODEL, **overrides})
    view = bench.given(setting).view
    config = backbone_config("mlp", method.model)
    assert isinstance(config, MLPConfig)
    made = cpf.Propagation(method, config, view, Randomness(0)).eval()
    with torch.no_grad():  # as if trained
        made.balance.copy_(torch.randn(made.balance.shape, generator=torch.Generator().manual_seed(1)))
    return made, view


def loop(made: Any, view: Any, inputs: Inputs, steps: int) -> torch.Tensor:
    """h after `steps`, node by node; observed nodes are found by id."""
    place = {int(v): i for i, v in enumerate(view.inputs.space.ids)}
    labels = dict(zip(view.train.ids.tolist(), view.labels.tolist(), strict=True))
    ids, classes = inputs.space.ids.tolist(), view.num_classes
    h = torch.full((len(ids), classes), 1 / classes)
    for i, v in enumerate(ids):
        if v in labels:
            h[i] = torch.eye(classes)[labels[v]]
    own = made.source
    score = inputs.features @ own if made.by_features else torch.stack([own[place[v]] for v in ids])
    transformed = None if made.mlp is None else made.mlp(inputs.features)
    border, index = inputs.graph.indptr.tolist(), inputs.graph.index.long()
    for _ in range(steps):
        new = h.clone()
        for i, v in enumerate(ids):
            if v in labels:
                continue
            near = index[border[i] : border[i + 1]]
            spread = (score[near].softmax(0)[:, None] * h[near]).sum(0)
            if transformed is not None:
                a = made.balance[place[v]] if v in place else made.balance.mean()
                spread = a.sigmoid() * spread + (-a).sigmoid() * transformed[i]
            new[i] = spread.relu()
        h = new
    return h


@pytest.mark.parametrize("transform", [True, False])
@pytest.mark.parametrize("score", ["ind", "tra"])
def test_propagation_is_that_of_a_loop(bench: Any, score: str, transform: bool) -> None:
    made, view = module(bench, score=score, transform=transform)
    student = cpf.Propagator(made, view.inputs.space, binary=False)
    got = student(view.inputs)
    torch.testing.assert_close(got, loop(made, view, view.inputs, 3))
    got.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(
        p.grad is not None and p.grad.any() for name, p in made.named_parameters() if transform or "bal" not in name
    )


@pytest.mark.parametrize("scene", ["full", "coldstart"])
def test_unseen_nodes_take_the_mean_balance_and_observed_ones_their_own_by_id(bench: Any, scene: str) -> None:
    made, view = module(bench, "ind")
    student = cpf.Propagator(made, view.inputs.space, binary=False)
    inputs = bench.later("ind", scene)
    assert len(inputs.space) > len(view.inputs.space)
    torch.testing.assert_close(student(inputs), loop(made, view, inputs, 3))
    some = inputs.everything.take(torch.tensor([7, 2, 200]))
    torch.testing.assert_close(student(inputs, some), student(inputs)[[7, 2, 200]])


def test_free_scores_are_refused_where_nodes_are_unseen(bench: Any) -> None:
    for variant in ("corrected", "as_released"):
        method = resolve("cpf", {"score": "tra", "variant": variant})
        outcome = bench.workshop.run(method, bench.problem("ind")).outcome
        assert outcome.status == "error"
        assert "unseen nodes lack" in outcome.reason
        assert "score='ind'" in outcome.reason
    assert bench.run("cpf", score="tra", model=MODEL).outcome.status == "ok"


def test_batches_are_refused(bench: Any) -> None:
    outcome = bench.workshop.run(resolve("cpf", {"batch_size": 8}), bench.problem("tran")).outcome
    assert "batch_size: expected None" in outcome.reason


def test_the_loss_is_one_norm_over_all_entries() -> None:
    h, target = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64).softmax(1)
    wanted = np.sqrt(((torch.softmax(h, 1) - target).numpy() ** 2).sum())
    assert cpf.imitation(h, target).item() == pytest.approx(wanted)
    assert torch.autograd.gradcheck(lambda z: cpf.imitation(z, target), (h.requires_grad_(),))


def test_labelled_nodes_and_their_labels_in_the_teacher_are_out_of_the_loss(bench: Any, monkeypatch: Any) -> None:
    rows: list[int] = []

    def counting(h: torch.Tensor, target: torch.Tensor, *, multi_label: bool) -> torch.Tensor:
        rows.append(len(h))
        return imitation(h, target, multi_label=multi_label)

    imitation = cpf.imitation
    monkeypatch.setattr(cpf, "imitation", counting)
    bench.run("cpf", model=MODEL, epochs=2)
    assert rows == [150, 150], "210 nodes, 60 of them labelled"


def test_dropout_is_another_in_every_step(bench: Any) -> None:
    made, view = module(bench)
    made.train()
    x = view.inputs.features
    first, second = (made._transformed(x, step) for step in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, made._transformed(x, 0))
    assert not torch.equal(made._dropped(x, "score 0"), made._dropped(x, "score 1"))


def test_features_are_binary_in_the_release_alone(bench: Any) -> None:
    dense = torch.tensor([[0.0, 0.3], [-2.0, 0.0]])
    sparse = SparseFeatures.from_dense(dense)
    view = bench.given("tran").view
    for features in (dense, sparse, MixedFeatures(sparse, dense)):
        inputs = Inputs(view.inputs.space, view.inputs.space, view.inputs.graph, features)
        got = binarised(inputs).features
        whole = got if isinstance(got, torch.Tensor) else torch.cat([*map(torch.Tensor.float, parts(got))], 1)
        assert whole[:, :2].tolist() == [[0, 1], [1, 0]]
    made, view = module(bench)
    plain, binary = (cpf.Propagator(made, view.inputs.space, binary=b)(view.inputs) for b in (False, True))
    assert not torch.equal(plain, binary)
    finals = [bench.final("cpf", variant=v, model=MODEL) for v in ("corrected", "as_released")]
    assert not torch.equal(*(final["source"] for final in finals))


def parts(features: Any) -> list[torch.Tensor]:
    if isinstance(features, SparseFeatures):
        return [features.dense()]
    return [features.sparse.dense(), features.dense]


def ids_by_position(problem: Any) -> torch.Tensor:
    """[N] the id of the node at every position of the graph that a transductive method sees."""
    before = make_evaluation_graphs(problem)
    after = renumbered_graphs(before, problem)
    ids = torch.empty(problem.task.num_nodes, dtype=torch.int64)
    sets = [("train", before.train, after.graphs.train), ("val", before.val, after.graphs.val)]
    sets += [(a.column, a.items, b.items) for a, b in zip(before.scored_sets, after.graphs.scored_sets, strict=True)]
    for column, old, new in sets:
        ids[new.position] = old.ids[torch.from_numpy(after.place[column])]
    return ids


def test_with_nodes_in_another_order_weights_move_along(bench: Any) -> None:
    problem = bench.problem("tran")
    order = np.random.default_rng(2).permutation(210)
    method = small_method("cpf", {"attention_dropout": 0.0, "model": MODEL}, epochs=4, quiet=True)
    moved = renumbered(problem, order)
    first, second = (bench.workshop.run(method, p, quiet=True).final["model"] for p in (problem, moved))
    for state, made in ((first, problem), (second, moved)):
        by_id = torch.empty_like(state["balance"])
        by_id[ids_by_position(made)] = state["balance"]
        state["balance"] = by_id
    first["balance"] = first["balance"][order]
    assert relative_gap(first, second) < 1e-3


@pytest.mark.parametrize("score", ["ind", "tra"])
def test_nodes_in_another_order_are_known_by_their_ids(bench: Any, score: str) -> None:
    made, view = module(bench, score=score)
    plain = view.inputs
    order = torch.from_numpy(np.random.default_rng(2).permutation(210))
    number = order.argsort()
    edges = torch.stack([number[plain.graph.index.long()], number[plain.graph.row.long()]])
    space = Space("shuffled", plain.space.ids[order])
    moved = Inputs(space, space, CSRGraph.from_edge_index(edges, 210), plain.features[order])
    student = cpf.Propagator(made, plain.space, binary=False)
    torch.testing.assert_close(student(moved), student(plain)[order])


def test_multiply_adds_are_counted(bench: Any) -> None:
    for mlp in (True, False):
        made, view = module(bench, transform=mlp)
        student = cpf.Propagator(made, view.inputs.space, binary=False)
        d, edges = view.num_features, view.inputs.graph.num_edges
        wanted = 3 * edges * 3 + 210 * d + mlp * (210 * (d * 8 + 8 * 3) + 2 * 3 * 210 * 3)
        assert student.macs is not None
        assert student.macs(view.inputs) == wanted


def test_a_key_that_nothing_reads_is_refused() -> None:
    """docs/protocol.md, trap 26: the release's search draws `learning_rate`, and its optimiser reads `lr`."""
    with pytest.raises(UnknownName):
        resolve("cpf", {"learning_rate": 0.005})


PUBLISHED = {
    ("gcn", "cora"): (8, 32, 0.8, 0.2, 0.001, 0.01),
    ("gcn", "citeseer"): (6, 64, 0.8, 0.2, 0.001, 0.01),
    ("gcn", "pubmed"): (5, 8, 0.8, 0.2, 0.001, 0.01),
    ("gcn", "amazon-computers"): (10, 64, 0.5, 0.8, 0.001, 0.01),
    ("appnp", "pubmed"): (8, 64, 0.5, 0.2, 0.005, 0.01),
    ("sage", "amazon-computers"): (8, 64, 0.2, 0.5, 0.01, 5e-4),
}
"""(teacher, data set): K, width, dropouts, lr, weight decay."""


@pytest.mark.parametrize("cell", PUBLISHED, ids=" ".join)
def test_published_settings(cell: tuple[str, str]) -> None:
    teacher, dataset = cell
    found: Any = resolve("cpf", {"teacher": teacher}, dataset=dataset, split="cpf-lcc-20-30")
    rates = (found.attention_dropout, found.lr, found.weight_decay)
    assert (found.steps, found.model["hidden"], found.model["dropout"], *rates) == PUBLISHED[cell]
    assert (found.recipe, found.score, found.epochs, found.patience) == (f"yang2021_cpf_tran_{teacher}", "ind", 500, 50)


def test_recipes_of_both_scores() -> None:
    teachers = ("appnp", "gat", "gcn", "sage", "sgc")
    assert recipes("cpf") == [f"yang2021_cpf_{kind}_{teacher}" for kind in ("free", "tran") for teacher in teachers]
    found: Any = resolve("cpf", dataset="cora", split="cpf-lcc-20-30", recipe="yang2021_cpf_free_gcn")
    assert (found.score, found.teacher, found.steps) == ("tra", "gcn", 7)
    assert resolve("cpf", dataset="cora", split="cpf-lcc-20-30-ind20").recipe is None
