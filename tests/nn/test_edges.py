"""Edge features in messages, and graphs of one batch: what a network of one graph alone would compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph
from support.small_graph import CLASSES, NODES, WIDTH, Scene
from torch import Tensor

from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.edges import edge_sums
from gkdbench.nn.random import Randomness

KINDS = 3
BACKBONES_WITH_EDGES: list[tuple[str, dict[str, Any]]] = [
    ("gin", {"layers": 2, "hidden": 8, "dropout": 0.0}),
    ("gcn", {"layers": 2, "hidden": 8, "dropout": 0.0, "readout": "mean", "norm": "batch", "self_loops": True}),
    ("gcn", {"layers": 2, "hidden": 8, "dropout": 0.0}),
]


def kinds(graph: CSRGraph) -> Tensor:
    """[E] kind of each edge, the same in both directions."""
    return (graph.index.long() + graph.row.long()) % KINDS


def one_hot(graph: CSRGraph) -> Tensor:
    return torch.nn.functional.one_hot(kinds(graph), KINDS).double()


def test_sums_are_counts_of_each_kind(scene: Scene) -> None:
    counts = torch.zeros(NODES, KINDS, dtype=torch.float64)
    for destination, kind in zip(scene.graph.row.tolist(), kinds(scene.graph).tolist(), strict=True):
        counts[destination, kind] += 1
    assert torch.equal(edge_sums(scene.graph, one_hot(scene.graph)), counts)
    with pytest.raises(ValueError, match="one row for each of"):
        edge_sums(scene.graph, one_hot(scene.graph)[1:])


def model_of(name: str, fields: dict[str, Any], edge_width: int = KINDS) -> Any:
    model = BACKBONES.get(name)(**fields).build_with_edges(WIDTH, CLASSES, edge_width, Randomness(0))
    return model.double().eval()


def test_gin_adds_an_embedding_to_every_message(scene: Scene) -> None:
    """Against messages written down edge by edge: ``W (h_j) + V[kind of edge]``."""
    model = model_of("gin", {"layers": 1, "hidden": 8, "dropout": 0.0, "train_eps": False})
    conv, graph, x = model.convs[0], scene.graph, scene.dense.double()
    messages = (x @ conv.first.weight)[graph.index.long()] + conv.edges.weight[kinds(graph)]  # [E, 8]
    total = (x @ conv.first.weight).index_add(0, graph.row.long(), messages)
    state = torch.relu(model.norms[0](conv.second(torch.relu(conv.norm(total)))))
    torch.testing.assert_close(model(x, graph, None, one_hot(graph)), model.head(state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loops", [False, True])
def test_gcn_weighs_edge_embeddings_as_it_weighs_neighbours(scene: Scene, loops: bool) -> None:
    fields = {"layers": 1, "dropout": 0.0, "bias": False, "self_loops": loops}
    model = model_of("gcn", fields)
    graph, x, conv = scene.graph, scene.dense.double(), model.convs[0]
    root = (graph.degree.double() + loops).rsqrt()
    dst, src = graph.row.long(), graph.index.long()
    messages = (x @ conv.linear.weight)[src] + conv.edges.weight[kinds(graph)]
    wanted = torch.zeros(NODES, CLASSES, dtype=torch.float64)
    wanted.index_add_(0, dst, (root[dst] * root[src])[:, None] * messages)
    if loops:
        wanted += root[:, None] ** 2 * (x @ conv.linear.weight)
    torch.testing.assert_close(model(x, graph, None, one_hot(graph)), wanted, rtol=1e-12, atol=1e-12)


def test_loops_of_the_layer_are_loops_of_the_graph(scene: Scene) -> None:
    """A GCN that adds loops equals one on a graph that has them."""
    nodes = torch.arange(NODES)
    edges = torch.stack([torch.cat([scene.graph.index, nodes]), torch.cat([scene.graph.row, nodes])])
    looped = CSRGraph.from_edge_index(edges, NODES)
    fields = {"layers": 2, "hidden": 8, "dropout": 0.0}
    own, given = (model_of("gcn", {**fields, "self_loops": loops}, 0) for loops in (True, False))
    x = scene.dense.double()
    torch.testing.assert_close(own(x, scene.graph), given(x, looped), rtol=1e-10, atol=1e-10)


def test_loops_of_the_layer_refuse_sampled_blocks(scene: Scene) -> None:
    block = CSRGraph(torch.tensor([0, 1]), torch.tensor([1]), 2)
    model = model_of("gcn", {"layers": 1, "self_loops": True}, 0)
    with pytest.raises(ValueError, match="square"):
        model.forward_blocks(torch.zeros(2, WIDTH, dtype=torch.float64), [block])


@pytest.mark.parametrize(("name", "fields"), BACKBONES_WITH_EDGES)
def test_edge_features_matter_and_learn(name: str, fields: dict[str, Any], scene: Scene) -> None:
    model, edges = model_of(name, fields), one_hot(scene.graph)
    x, segments = scene.dense.double(), scene.segments
    out = model(x, scene.graph, segments, edges)
    assert not torch.allclose(out, model(x, scene.graph, segments, edges[:, [1, 2, 0]]))
    torch.testing.assert_close(model(x, scene.graph, segments), model(x, scene.graph, segments, 0 * edges))
    out.square().sum().backward()
    assert all(conv.edges.weight.grad.any() for conv in model.convs)


@pytest.mark.parametrize(("name", "fields"), BACKBONES_WITH_EDGES)
def test_without_edge_features_nothing_of_them_is_left(name: str, fields: dict[str, Any]) -> None:
    plain = BACKBONES.get(name)(**fields).build(WIDTH, CLASSES, Randomness(0))
    assert plain.edge_width == 0
    assert not any("edges" in key for key in plain.state_dict())
    other = model_of(name, fields)  # and the rest starts from the same weights
    assert all(torch.equal(value.double(), other.state_dict()[key]) for key, value in plain.state_dict().items())


@pytest.mark.parametrize(("name", "fields"), BACKBONES_WITH_EDGES)
def test_edge_features_count_in_the_costs(name: str, fields: dict[str, Any]) -> None:
    config = BACKBONES.get(name)(**fields)
    per_layer = [conv.edges.weight.size(1) for conv in model_of(name, fields).convs]
    if name == "gcn" and not config.readout:
        per_layer[-1] = 8  # the width of the logits is not known here; the hidden width bounds it
    assert config.edge_macs(KINDS, NODES, 90) == KINDS * (90 + NODES * sum(per_layer))
