"""Node tasks on several graphs (PPI): a step reads whole graphs, and what is compared is of these graphs alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gkdkernels import edge_log_probs, structure_kl

from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.errors import UserError
from gkdbench.methods.structure.lsp import _Structure
from gkdbench.protocol.view import TrainView
from gkdbench.protocol.view_io import read_bundle
from gkdbench.training.graph_batches import graph_batches
from gkdbench.training.hidden_features import student_forward
from gkdbench.training.models import build
from gkdbench.training.resolve import resolve

TRAINING_GRAPHS = 5
SMALL = {"backbone": "gcn", "model": {"hidden": 8, "layers": 4}}


@pytest.fixture(scope="module")
def problem() -> SplitTask:
    return prepare_named("ppi-shaped:graphs=9,nodes=24,classes=4,d=6,degree=5", "ppi")


@pytest.fixture(scope="module")
def view(bench: Any, problem: SplitTask) -> TrainView:
    return read_bundle(bench.workshop.view(problem)[0]).view


def model_of(view: TrainView) -> Any:
    return build(resolve("alignahead", SMALL).backbone_config(), view, seed=0)  # type: ignore[attr-defined]


def test_batches_are_whole_graphs_and_together_all_of_them(view: TrainView, problem: SplitTask) -> None:
    found = list(graph_batches(view, model_of(view), 2))
    assert [len(part.nodes) for part in found] == [48, 48, 24]
    seen = torch.cat([part.nodes for part in found])
    assert torch.equal(seen.sort().values, view.inputs.everything.position)
    edges, whole = set(), view.inputs
    for part in found:
        assert torch.equal(part.inputs.features, whole.features[part.nodes])
        assert torch.equal(part.labels, view.labels[part.nodes[part.rows]]) and part.rows.numel() == len(part.nodes)
        graph = part.inputs.graph
        edges |= set(zip(part.nodes[graph.row.long()].tolist(), part.nodes[graph.index.long()].tolist(), strict=True))
        for graph_number in whole.parts[part.nodes].unique():  # type: ignore[index]
            assert int((whole.parts == graph_number).sum()) == 24, "graphs are not cut"  # type: ignore[arg-type]
    assert edges == set(zip(whole.graph.row.tolist(), whole.graph.index.tolist(), strict=True))


def test_the_number_of_a_graph_follows_from_the_order_of_nodes(view: TrainView) -> None:
    """Numbers of the file would tell a method the order in it (`gkdbench.protocol.renumbering`)."""
    parts = view.inputs.parts
    assert parts is not None
    first = [int((parts == graph).nonzero()[0]) for graph in range(view.inputs.num_parts)]
    assert first == sorted(first) and len(first) == TRAINING_GRAPHS


@pytest.mark.parametrize(
    ("name", "options", "moved"),
    [
        ("alignahead", {**SMALL, "students": 2, "eval_every": 1}, 2),
        ("lsp", {"model": {"hidden": 8}}, 1),
        ("lsp", {"model": {"hidden": 8}, "lam": 0.0}, 1),
        ("kd", {"model": {"hidden": 8}}, 1),
        ("kd", {"model": {"hidden": 8}, "alpha": 0.0}, 1),
        ("teacher", {"backbone": "gcn", "model": {"hidden": 8}}, 1),
    ],
)
def test_an_epoch_has_a_step_for_each_batch_of_graphs(
    bench: Any, problem: SplitTask, adam_steps: Callable[[], int], name: str, options: dict[str, Any], moved: int
) -> None:
    def steps(**more: Any) -> int:
        method = resolve(name, {**options, "epochs": 2, **more})
        bench.workshop.teachers(method, problem)
        before = adam_steps()
        assert bench.workshop.run(method, problem).outcome.status == "ok"
        return adam_steps() - before

    assert steps(graphs_per_step=2) == 2 * 3 * moved
    assert steps() == 2 * moved, "without it the whole observed graph is one step"


def test_lsp_compares_the_structures_of_the_batch(view: TrainView) -> None:
    """The teacher's structure on the batch's graphs, by the formula on these graphs as if there were no others."""
    method: Any = resolve("lsp", SMALL)
    model = model_of(view)
    hidden = torch.randn(len(view.items), 5, generator=torch.Generator().manual_seed(0))
    objective = _Structure(method, view.inputs.graph, hidden, 9, model)
    part = next(graph_batches(view, model, 2))
    answer = student_forward(model, part.inputs, part.nodes)
    kernel, sigma = method.structure()
    target = edge_log_probs(part.inputs.graph, hidden[part.nodes], kernel, sigma)
    wanted = structure_kl(part.inputs.graph, answer.hidden[-1], target, kernel=kernel, sigma=sigma)
    torch.testing.assert_close(objective.terms(1, answer)["structure"], wanted)


def test_one_graph_has_no_batches_of_graphs(bench: Any) -> None:
    method = resolve("alignahead", {**SMALL, "epochs": 1, "graphs_per_step": 2})
    run = bench.workshop.run(method, bench.problem("tran"))
    assert run.outcome.reason.startswith("UserError: graphs_per_step: expected None, got 2: csbm")
    with pytest.raises(UserError, match="graphs_per_step"):
        next(graph_batches(bench.given("tran").view, None, 2))  # type: ignore[arg-type]


def test_the_recipes_of_ppi_take_two_graphs_a_step() -> None:
    """The official codes take 10 steps an epoch on PPI's 20 training graphs."""
    recipes = {"alignahead": "guo2022_alignahead_ppi", "lsp": "yang2020_lsp_ppi", "kd": "joshi2022_kd_ppi"}
    for name, recipe in {**recipes, "teacher": "yang2020_lsp_ppi"}.items():
        assert resolve(name, recipe=recipe).graphs_per_step == 2, name  # type: ignore[attr-defined]
    alone: Any = resolve("alignahead", recipe="guo2022_alignahead")
    with_graphs: Any = resolve("alignahead", recipe="guo2022_alignahead_ppi")
    assert alone.graphs_per_step is None
    assert (alone.model, alone.lr, alone.epochs) == (with_graphs.model, with_graphs.lr, with_graphs.epochs)
