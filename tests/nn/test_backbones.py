"""What every backbone promises, registered ones included without a word here."""

from __future__ import annotations

import copy

import pytest
import torch
from gkdkernels import CSRGraph
from support.small_graph import CLASSES, NODES, WIDTH, Scene
from torch import Tensor

from gkdbench.errors import UnknownName, UserError
from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.model import Backbone, Model, parameter_count
from gkdbench.nn.parts import KeyedDropout
from gkdbench.nn.random import Randomness

VARIANTS: dict[str, list[dict[str, object]]] = {
    "gcn": [
        {"norm": "batch", "residual": True},
        {"layers": 3, "norm": "layer", "input_dropout": False},
        {"layers": 1},
        {"bias": False},
        {"readout": "mean", "norm": "batch", "self_loops": True},
        {"readout": "attention", "layers": 3, "residual": True},
    ],
    "sage": [{"aggregator": "mean"}, {"layers": 3, "norm": "layer", "residual": True, "dropout": 0.2}],
    "gat": [
        {"out_heads": 3, "residual": True},
        {"layers": 3, "norm": "layer", "activation": "relu", "value_dropout": 0.3},
    ],
    "mlp": [{"layers": 1}, {"layers": 3, "norm": "batch"}],
    "appnp": [{"input_dropout": True, "k": 2}, {"edge_dropout": 0.0}],
    "graph_mlp": [{"hops": 1, "readout": "sum"}, {"dropout": 0.5}],
    "gin": [{"readout": "mean"}, {"readout": "attention", "layers": 2}, {"readout": "max", "train_eps": False}],
}
CASES = [(name, fields) for name in BACKBONES.names() for fields in ({}, *VARIANTS.get(name, []))]


def label(case: tuple[str, dict[str, object]]) -> str:
    return "-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


@pytest.fixture(params=CASES, ids=label)
def config(request: pytest.FixtureRequest) -> Backbone:
    name, fields = request.param
    built: Backbone = BACKBONES.get(name)(**fields)
    return built


def build(config: Backbone, seed: int = 0, peer: int = 0) -> Model:
    return config.build(WIDTH, CLASSES, Randomness(seed, peer))


def weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_shapes_and_one_code_path(config: Backbone, scene: Scene) -> None:
    model = build(config).eval()
    trace = model.trace(scene.dense, scene.graph)
    assert trace.logits.shape == (NODES, CLASSES)
    assert trace.logits.isfinite().all()  # nodes without edges too
    assert torch.equal(trace.logits, model(scene.dense, scene.graph))
    assert all(hidden.shape[0] == NODES for hidden in trace.hidden)
    graphs = model(scene.dense, scene.graph, scene.segments)
    assert graphs.shape == (3, CLASSES)
    assert graphs.isfinite().all()
    assert torch.equal(graphs, model.trace(scene.dense, scene.graph, scene.segments).logits)


def test_hidden_layers_are_what_the_activation_receives(config: Backbone, scene: Scene) -> None:
    layers = 3 if config.name == "graph_mlp" else getattr(config, "layers", 1)
    hidden = build(config).eval().trace(scene.dense, scene.graph).hidden
    assert len(hidden) == (layers if getattr(config, "readout", None) else layers - 1)
    assert all((layer < 0).any() for layer in hidden)


def test_sparse_and_mixed_features_give_the_same_model(config: Backbone, scene: Scene) -> None:
    results = []
    for x in (scene.dense, scene.sparse, scene.mixed):
        model = build(config).eval()
        logits = model(x, scene.graph)
        logits.square().sum().backward()
        results.append((logits, [p.grad for p in model.parameters()]))
    for logits, grads in results[1:]:
        close(logits, results[0][0])
        for a, b in zip(grads, results[0][1], strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max() + 1))


def test_every_parameter_learns(config: Backbone, scene: Scene) -> None:
    still: set[str] | None = None
    for seed in range(3):  # a score vector rightly learns nothing where all scores of a row have one sign
        model = build(config, seed).eval()
        model(scene.dense, scene.graph, scene.segments).square().sum().backward()
        idle = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
        still = idle if still is None else still & idle
    assert not still


def test_permutation_of_nodes(config: Backbone, scene: Scene) -> None:
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    edges = torch.stack([place[scene.graph.index], place[scene.graph.row]])
    model = build(config).eval()
    moved = model(scene.dense[order], CSRGraph.from_edge_index(edges, NODES))
    close(moved, model(scene.dense, scene.graph)[order])


def test_initial_weights_follow_seed_and_peer(config: Backbone) -> None:
    state = torch.get_rng_state()
    first = weights(build(config))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, weights(build(config)))
    assert not torch.equal(first, weights(build(config, seed=1)))
    assert not torch.equal(first, weights(build(config, peer=1)))


def test_training_draws_depend_on_seed_peer_and_step_alone(config: Backbone, scene: Scene) -> None:
    model = build(config).train()
    state = torch.get_rng_state()

    def run(step: int) -> Tensor:
        model.randomness.step = step
        out: Tensor = model(scene.dense, scene.graph)
        return out.detach()

    first = run(0)
    assert torch.equal(torch.get_rng_state(), state)
    other = run(1)
    torch.rand(3)
    model.eval()(scene.dense, scene.graph)  # an evaluation between two steps changes no draw
    model.train()
    assert torch.equal(first, run(0))
    drawn = [m for m in model.modules() if isinstance(m, KeyedDropout) and m.p > 0]
    draws = bool(drawn or getattr(config, "attention_dropout", 0) or getattr(config, "edge_dropout", 0))
    assert torch.equal(first, other) != draws


def test_evaluation_is_repeatable_and_changes_nothing(config: Backbone, scene: Scene) -> None:
    model = build(config).eval()
    before = copy.deepcopy(model.state_dict())
    x = scene.dense.clone()
    assert torch.equal(model(x, scene.graph), model(x, scene.graph))
    assert torch.equal(x, scene.dense)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_first_layer_parameters_are_the_model_s(config: Backbone) -> None:
    model = build(config)
    first = model.first_layer_parameters()
    own = {id(p) for p in model.parameters()}
    assert first
    assert all(id(p) in own for p in first)
    assert sum(p.numel() for p in first) >= WIDTH * min(CLASSES, 8)


def test_description_and_cost(config: Backbone) -> None:
    kind = type(config)
    assert kind.paper
    assert kind.revision >= 1
    assert (kind.__doc__ or "").strip()
    sparse, dense = (config.macs(WIDTH, CLASSES, NODES, 180, nnz) for nnz in (50, NODES * WIDTH))
    assert 0 < sparse < dense
    assert parameter_count(build(config)) > 0


def path_graph(nodes: int, linked: int | None = None) -> CSRGraph:
    """0 - 1 - 2 - ... up to node `linked` - 1, both directions; the nodes after it have no edges."""
    right = torch.arange(1, nodes if linked is None else linked)
    left = right - 1
    edges = torch.stack([torch.cat([left, right]), torch.cat([right, left])])
    return CSRGraph.from_edge_index(edges, nodes, symmetric=True)


def test_a_prediction_reads_what_lies_within_the_declared_hops_and_nothing_else(config: Backbone) -> None:
    hops, draw = config.hops, torch.Generator().manual_seed(5)
    nodes = hops + 4
    x, other = (torch.randn(nodes, WIDTH, generator=draw) for _ in range(2))
    model, whole = build(config).eval(), path_graph(nodes)
    answer = model(x, whole)[0]

    def same(x: Tensor, graph: CSRGraph) -> bool:
        return torch.allclose(model(x, graph)[0], answer, rtol=1e-5, atol=1e-6)

    def moved(node: int) -> Tensor:
        return torch.where(torch.arange(nodes)[:, None] == node, 100 * other, x)

    assert not same(moved(hops), whole)  # the farthest node that is read
    assert all(same(moved(node), whole) for node in range(hops + 1, nodes))
    # The degree of node `hops` may count: its edge to the next node stays.
    assert same(x, path_graph(nodes, linked=hops + 2))
    assert hops == 0 or not same(x, path_graph(nodes, linked=hops))


@pytest.mark.parametrize("name", [n for n in BACKBONES.names() if n != "sgc" and BACKBONES.get(n)().hops])
def test_graph_is_needed(name: str, scene: Scene) -> None:
    with pytest.raises(ValueError, match="reads the graph: expected a graph, got None"):
        BACKBONES.get(name)().build(WIDTH, CLASSES, Randomness(0))(scene.dense)


def test_the_mlp_with_a_readout_needs_the_graph_where_it_reads_neighbours(scene: Scene) -> None:
    own, neighbours = (BACKBONES.get("graph_mlp")(hops=hops).build(WIDTH, CLASSES, Randomness(0)) for hops in (0, 1))
    assert own(scene.dense).shape == (NODES, CLASSES)
    with pytest.raises(ValueError, match="reads the graph: expected a graph, got None"):
        neighbours(scene.dense)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("gcn", {"hidden": 0}, "gcn.hidden: expected a value at least 1, got 0"),
        ("gcn", {"dropout": 1.5}, r"gcn.dropout: expected a value in \[0, 1\], got 1.5"),
        ("gcn", {"norm": "group"}, "gcn.norm: expected one of none, batch, layer, got 'group'"),
        ("sage", {"aggregator": "lstm"}, "sage.aggregator: expected one of gcn, mean, got 'lstm'"),
        ("gat", {"heads": 0}, "gat.heads: expected a value at least 1"),
        ("mlp", {"activation": "gelu"}, "mlp.activation: expected one of relu, elu, tanh"),
        ("appnp", {"k": -1}, "appnp.k: expected a value at least 0"),
        ("gin", {"readout": "set2set"}, "gin.readout: expected one of"),
        ("sgc", {"hops": -1}, "sgc.hops: expected a value at least 0"),
    ],
)
def test_bad_field(name: str, fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        BACKBONES.get(name)(**fields)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'gcn'"):
        BACKBONES.get("gcnn")
