"""Each layer against its paper's formula, written with dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from gkdkernels import SparseFeatures
from support.small_graph import CLASSES, NODES, WIDTH, Scene
from torch import Tensor

from gkdbench.nn.appnp import APPNPConfig
from gkdbench.nn.gat import GATConfig
from gkdbench.nn.gcn import GCNConfig
from gkdbench.nn.gin import GINConfig
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.random import Randomness
from gkdbench.nn.sage import SAGEConfig
from gkdbench.nn.sgc import SGCConfig, propagate


def adjacency(scene: Scene) -> Tensor:
    return SparseFeatures(scene.graph, torch.ones(scene.graph.num_edges)).dense()  # [i, j]: edges j -> i


def normalised(scene: Scene) -> Tensor:
    a = adjacency(scene)
    scale = a.sum(1).clamp(min=1).rsqrt()
    return scale[:, None] * a * scale


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gcn(scene: Scene) -> None:
    model = GCNConfig(hidden=5).build(WIDTH, CLASSES, Randomness(0)).eval()
    w1, b1, w2, b2 = (model.get_parameter(f"convs.{i}.{n}") for i in (0, 1) for n in ("linear.weight", "bias"))
    a = normalised(scene)
    close(model(scene.dense, scene.graph), a @ torch.relu(a @ scene.dense @ w1 + b1) @ w2 + b2)


@pytest.mark.parametrize("hidden", [3, 64], ids=["narrow", "wide"])  # both orders of product and aggregation
@pytest.mark.parametrize("aggregator", ["gcn", "mean"])
def test_sage(scene: Scene, aggregator: str, hidden: int) -> None:
    model = SAGEConfig(layers=2, hidden=hidden, aggregator=aggregator).build(WIDTH, CLASSES, Randomness(0)).eval()  # type: ignore[arg-type]
    a = adjacency(scene)
    degree = a.sum(1, keepdim=True)

    def layer(x: Tensor, i: int) -> Tensor:
        w, b = model.get_parameter(f"convs.{i}.neighbours.weight"), model.get_parameter(f"convs.{i}.bias")
        if aggregator == "gcn":
            return (a @ x + x) / (degree + 1) @ w + b
        return x @ model.get_parameter(f"convs.{i}.self_loop.weight") + a @ x / degree.clamp(min=1) @ w + b

    close(model(scene.dense, scene.graph), layer(torch.relu(layer(scene.dense, 0)), 1))


def test_gat(scene: Scene) -> None:
    model = GATConfig(head_width=3, heads=2, out_heads=2).build(WIDTH, CLASSES, Randomness(0)).eval()
    a = adjacency(scene)

    def layer(x: Tensor, i: int) -> Tensor:
        source, target = model.get_parameter(f"convs.{i}.source"), model.get_parameter(f"convs.{i}.target")
        h = (x @ model.get_parameter(f"convs.{i}.linear.weight")).view(NODES, *source.shape)
        score = torch.nn.functional.leaky_relu(
            ((h * source).sum(-1)[None] + (h * target).sum(-1)[:, None]), 0.2
        )  # [i, j, head]
        p = a[:, :, None] * (score - score.amax()).exp()  # parallel edges count twice
        p = p / p.sum(1, keepdim=True).clamp(min=1e-30)
        return torch.einsum("ijk,jkf->ikf", p, h)

    hidden = torch.nn.functional.elu(layer(scene.dense, 0).flatten(1) + model.get_parameter("biases.0"))
    close(model(scene.dense, scene.graph), layer(hidden, 1).mean(1) + model.get_parameter("biases.1"))


def test_appnp(scene: Scene) -> None:
    model = APPNPConfig(k=40, alpha=0.2).build(WIDTH, CLASSES, Randomness(0)).eval()
    h = model.get_submodule("predict")(scene.dense)
    limit = 0.2 * torch.linalg.inv(torch.eye(NODES) - 0.8 * normalised(scene)) @ h  # eq. 3
    torch.testing.assert_close(model(scene.dense, scene.graph), limit, rtol=1e-2, atol=1e-3)


def test_gin(scene: Scene) -> None:
    model = GINConfig(layers=1, hidden=6, readout="sum").build(WIDTH, CLASSES, Randomness(0)).eval()
    eps = model.get_parameter("convs.0.eps")
    with torch.no_grad():
        eps.fill_(0.5)
    x = 1.5 * scene.dense + adjacency(scene) @ scene.dense
    x = model.get_submodule("convs.0.norm")(x @ model.get_parameter("convs.0.first.weight"))
    x = torch.relu(model.get_submodule("norms.0")(model.get_submodule("convs.0.second")(torch.relu(x))))
    pooled = torch.stack([x[:17].sum(0), torch.zeros(6), x[17:].sum(0)])
    close(model(scene.dense, scene.graph, scene.segments), model.get_submodule("head")(pooled))


def test_sgc_propagates_before_or_after_the_product(scene: Scene) -> None:
    model = SGCConfig(hops=2).build(WIDTH, CLASSES, Randomness(0))
    a = normalised(scene)
    for x in (scene.dense, scene.sparse, scene.mixed):
        ahead = propagate(x, scene.graph, 2)
        close(ahead, a @ a @ scene.dense)
        close(model(x, scene.graph), model(ahead))


def test_initial_weights_are_the_papers() -> None:
    kipf = GCNConfig(hidden=200).build(300, 7, Randomness(0)).get_parameter("convs.0.linear.weight")
    torch_style = MLPConfig(hidden=200).build(300, 7, Randomness(0)).get_parameter("linears.0.weight")
    sage = SAGEConfig(hidden=200).build(300, 7, Randomness(0)).get_parameter("convs.0.neighbours.weight")
    gat = GATConfig(head_width=200, heads=2).build(300, 7, Randomness(0)).get_parameter("convs.0.linear.weight")
    glorot = math.sqrt(6 / 500)
    for weight, bound in ((kipf, glorot), (torch_style, 300**-0.5), (sage, glorot * math.sqrt(2)), (gat, glorot)):
        assert 0.99 * bound < float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_sparse_dropout_acts_on_non_zeros_with_the_dense_rate(scene: Scene) -> None:
    model = GCNConfig(layers=1, dropout=0.5).build(WIDTH, CLASSES, Randomness(0)).train()
    means = []
    for x in (scene.dense, scene.sparse, scene.mixed):
        total = torch.zeros(NODES, CLASSES)
        for step in range(400):
            model.randomness.step = step
            total += model(x, scene.graph).detach()
        means.append(total / 400)
    wanted = model.eval()(scene.dense, scene.graph)
    assert all((mean - wanted).abs().max() < 0.2 for mean in means)
    assert all((mean - wanted).norm() / wanted.norm() < 0.12 for mean in means)
