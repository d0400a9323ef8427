"""SIGN is the MLP on concatenated propagated features; with a teacher it distils as the others do."""

from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph, SparseFeatures, gcn_weight, spmm

from gkdbench.nn.mlp import MLP
from gkdbench.nn.random import Randomness
from gkdbench.nn.sign import SIGNConfig
from gkdbench.testing.method_case import identical
from gkdbench.training.resolve import resolve

D, C, N = 5, 3, 12


def scene() -> tuple[CSRGraph, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(N, (2, 40), generator=generator)
    graph = CSRGraph.from_edge_index(torch.cat([edges, edges.flip(0), torch.arange(N).expand(2, N)], dim=1), N)
    x = torch.randn(N, D, generator=generator) * (torch.rand(N, D, generator=generator) < 0.4)
    return graph, x


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_is_an_mlp_on_all_powers_beside_each_other(hops: int, layers: int) -> None:
    graph, x = scene()
    config = SIGNConfig(hops=hops, layers=layers, hidden=4, norm="batch" if layers > 1 else "none")
    model = config.build(D, C, Randomness(0)).eval()
    powers = [x]
    for _ in range(hops):
        powers.append(spmm(graph, powers[-1], gcn_weight(graph)))
    weight = model.weight.reshape(D, hops + 1, -1).transpose(0, 1).reshape((hops + 1) * D, -1)  # type: ignore[operator]
    first = torch.cat(powers, dim=1) @ weight + model.bias  # type: ignore[operator]
    if layers == 1:
        wanted = first
    else:
        assert isinstance(model.rest, MLP)
        wanted = model.rest(model.norm(first).relu())  # type: ignore[operator]
    torch.testing.assert_close(model(x, graph), wanted)
    torch.testing.assert_close(model(SparseFeatures.from_dense(x), graph), wanted)


def test_initial_weights_are_those_of_one_linear_layer() -> None:
    model = SIGNConfig(hops=3, hidden=64).build(100, C, Randomness(0))
    bound = (4 * 100) ** -0.5
    assert 0.95 * bound < model.weight.abs().max() <= bound  # type: ignore[operator]


def test_unseen_nodes_are_propagated_on_the_full_graph(bench: Any) -> None:
    """Without their edges (coldstart) they are answered otherwise."""
    run = bench.run("sign", "ind", model={"hops": 2, "hidden": 8})
    scores = run.scored.models[0].scores
    assert scores["ind"].value != scores["coldstart"].value
    assert run.outcome.models[0]["hops"] == 2


def test_a_teacher_is_asked_only_where_it_has_a_weight(bench: Any) -> None:
    assert resolve("sign").requires() == {}
    assert set(resolve("sign", {"label_weight": 0.5, "teacher": "gcn"}).requires()) == {"teacher"}
    solo = bench.run("sign", epochs=2, model={"hidden": 8})
    taught = bench.run("sign", epochs=2, model={"hidden": 8}, label_weight=0.5)
    assert solo.outcome.teachers == {}
    assert set(taught.outcome.teachers) == {"teacher"}
    assert not identical(solo.final["model"], taught.final["model"])


def test_settings_are_those_of_the_mlp() -> None:
    for dataset in ("cora", "pubmed", "amazon-photo"):
        found: Any = resolve("sign", dataset=dataset, split="cpf-lcc-20-30")
        alone: Any = resolve("mlp", dataset=dataset, split="cpf-lcc-20-30")
        assert (found.lr, found.weight_decay, found.epochs) == (alone.lr, alone.weight_decay, alone.epochs)
        shared = {key: found.model[key] for key in alone.model}
        assert (shared, found.model["hops"]) == (alone.model, 3)


def test_the_released_script() -> None:
    found: Any = resolve("sign", recipe="frasca2020_papers100m")
    assert (found.lr, found.batch_size, found.epochs) == (5e-5, 256, 45)
    assert (found.model["layers"], found.model["hidden"], found.model["dropout"]) == (3, 512, 0.3)
