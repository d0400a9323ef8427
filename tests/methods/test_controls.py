"""Matched controls cost what they match (protocol controls G1, G2); SGC is logistic regression on propagated
features (docs/methods/baselines.md#sgc)."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from gkdbench.errors import UserError
from gkdbench.testing.problems import small_problem
from gkdbench.training.models import backbone_config, build
from gkdbench.training.resolve import resolve


def mlp_cost(d: int, hidden: int, layers: int, c: int) -> tuple[int, int]:
    """(parameters, multiply-adds per node) of a dense MLP with biases, counted layer by layer."""
    widths = [d, *[hidden] * (layers - 1), c]
    pairs = list(pairwise(widths))
    return sum(a * b + b for a, b in pairs), sum(a * b for a, b in pairs)


def gcn_cost(d: int, hidden: int, c: int, edges_per_node: float) -> tuple[int, float]:
    """The same of a 2-layer GCN: products, and one multiply-add per edge and channel at the narrower width."""
    parameters = d * hidden + hidden + hidden * c + c
    return parameters, d * hidden + min(d, hidden) * edges_per_node + hidden * c + c * edges_per_node


@pytest.mark.parametrize(("hidden", "layers"), [(64, 2), (256, 2), (256, 3)])
def test_a_matched_mlp_costs_within_a_percent(bench: Any, hidden: int, layers: int) -> None:
    task = small_problem("tran").task
    d, c, edges = task.num_features, task.num_classes, task.graph.num_edges / task.num_nodes
    parameters, macs = gcn_cost(d, hidden, c, edges)
    for name, index, wanted in (("mlp_params", 0, parameters), ("mlp_macs", 1, macs)):
        run = bench.run(
            name,
            epochs=1,
            match="gcn",
            match_model={"hidden": hidden, "layers": 2},
            model={"layers": layers, "hidden": 1},
        )
        width = int(run.outcome.extra["hidden"])
        cost = mlp_cost(d, width, layers, c)
        assert cost[index] == pytest.approx(wanted, rel=0.01)
        model = run.outcome.models[0]
        assert (model["parameters"], model["macs"]) == cost


def test_a_control_that_cannot_match_says_so(bench: Any) -> None:
    method = resolve("mlp_params", {"epochs": 1, "match_model": {"hidden": 1}, "model": {"layers": 4}})
    outcome = bench.workshop.run(method, bench.problem("tran")).outcome
    assert outcome.status == "error"
    assert "within 1 %" in outcome.reason


def test_matched_controls_cover_both_backbones_in_their_key() -> None:
    assert resolve("mlp_macs", {"match": "gat"}).backbones() == ("mlp", "gat")


def test_sgc_is_logistic_regression_on_propagated_features(bench: Any) -> None:
    """Predictions and ten steps of training equal those of ``softmax(S^2 X W + b)`` written with dense matrices."""
    given = bench.given("tran")
    view, graph = given.view, given.view.inputs.graph
    adjacency = torch.zeros(graph.num_dst, graph.num_src, dtype=torch.float64)
    adjacency[graph.row.long(), graph.index.long()] = 1
    scale = adjacency.sum(1).rsqrt()
    operator = scale[:, None] * adjacency * scale[None, :]
    x = operator @ (operator @ view.inputs.features.double())
    start = build(backbone_config("sgc", {"hops": 2}), view, seed=0)
    weight, bias = (p.detach().double().clone().requires_grad_() for p in start.parameters())
    optimiser = torch.optim.Adam([weight, bias], lr=0.2, weight_decay=2e-5)
    for _ in range(10):
        optimiser.zero_grad()
        logits = (x @ weight + bias)[view.train.position]
        torch.nn.functional.cross_entropy(logits, view.labels).backward()
        optimiser.step()
    trained = bench.final("sgc", epochs=10)
    for value, wanted in zip(trained.values(), (weight, bias), strict=True):
        torch.testing.assert_close(value.double(), wanted.detach(), rtol=2e-4, atol=2e-5)


def test_sgc_asks_for_an_mlp_with_a_hidden_layer() -> None:
    with pytest.raises(UserError, match="backbone"):
        resolve("sgc", {"backbone": "gcn"})
