"""Encodings come from the observed graph alone; unseen nodes take their neighbours' (traps 18 and 32)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph, MixedFeatures, SparseFeatures

from gkdbench.data.nodes import NodeTable, Space
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.testing.problems import small_problem, with_other_unseen
from gkdbench.training.blocks import deepwalk as _deepwalk
from gkdbench.training.blocks.encoded_method import EncodedMethod
from gkdbench.training.blocks.encodings import EncodingTable, beside, places
from gkdbench.training.resolve import resolve


def method(**overrides: Any) -> EncodedMethod:
    found = resolve("mlp_encodings", {"num_walks": 1, "walk_length": 10, "dim": 8, **overrides})
    assert isinstance(found, EncodedMethod)
    return found


@pytest.fixture(scope="module")
def scenes() -> Any:
    return make_evaluation_graphs(small_problem("ind")).graphs


def test_edges_of_unseen_nodes_do_not_reach_the_encodings(scenes: Any) -> None:
    """protocol.md, trap 18: other edges, features and labels for every unseen node; and a scene without their edges."""
    encoder = method().encoder(scenes["observed"], 0)
    kept = encoder.observed.value.clone()
    _deepwalk._KEPT.clear()
    observed = make_evaluation_graphs(with_other_unseen(small_problem("ind"))).graphs["observed"]
    assert torch.equal(method().encoder(observed, 0).encode(observed), kept)
    full, cold = scenes["full"], scenes["coldstart"]
    seen = places(full.space, scenes["observed"].space) >= 0
    at = places(full.space, scenes["observed"].space)[seen]
    for scene in (full, cold):
        assert torch.equal(encoder.encode(scene)[seen], kept[at]), "observed nodes keep theirs in every scene"


def test_unseen_nodes_take_the_mean_of_observed_in_neighbours(scenes: Any) -> None:
    full, observed = scenes["full"], scenes["observed"]
    encoder = method().encoder(observed, 0)
    released = EncodingTable(encoder.observed, zeros_included=True)
    of = {int(node): encoder.observed.value[i] for i, node in enumerate(observed.space.ids)}
    got, all_counted = encoder.encode(full), released.encode(full)
    borders, sources = full.graph.indptr.tolist(), full.graph.index.tolist()
    unseen = [i for i, node in enumerate(full.space.ids.tolist()) if node not in of]
    assert len(unseen) > 10
    for i in unseen:
        near = [int(full.space.ids[j]) for j in sources[borders[i] : borders[i + 1]]]
        known = [of[node] for node in near if node in of]
        total = torch.stack(known).sum(0) if known else torch.zeros(8)
        torch.testing.assert_close(got[i], total / max(len(known), 1))
        torch.testing.assert_close(all_counted[i], total / max(len(near), 1))
    assert not torch.allclose(got, all_counted)


def test_cold_nodes_get_zeros(scenes: Any) -> None:
    cold, observed = scenes["coldstart"], scenes["observed"]
    encoded = method().encoder(observed, 0).encode(cold)
    unseen = places(cold.space, observed.space) < 0
    assert (encoded[unseen] == 0).all()
    assert (encoded[~unseen].norm(dim=1) > 0).any()


def test_cold_predictions_are_those_of_zero_encodings(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: the coldstart column differs from ind, and is what the model says to zeros beside x."""
    seen: dict[str, Any] = {}
    evaluate = Predictor.evaluate

    def noting(self: Predictor, inputs: Inputs, items: Any = None) -> Any:
        answer = evaluate(self, inputs, items)
        if items is None:
            scene = inputs.space.name.rpartition("/")[2]
            zeros = torch.zeros(len(inputs.space), 8)
            self.module.eval()
            seen[scene] = answer, self.module(beside(inputs.features, zeros)).detach()
        return answer

    monkeypatch.setattr(Predictor, "evaluate", noting)
    bench.run("mlp_encodings", "ind", num_walks=1, walk_length=10, dim=8)
    unseen = (
        places(make_evaluation_graphs(small_problem("ind")).graphs["full"].space, bench.given("ind").view.items) < 0
    )
    torch.testing.assert_close(seen["coldstart"][0][unseen], seen["coldstart"][1][unseen])
    assert not torch.allclose(seen["full"][0][unseen], seen["full"][1][unseen])


def test_places() -> None:
    within, of = Space("a", torch.tensor([7, 3, 9])), Space("b", torch.tensor([9, 1, 3, 7, 12]))
    assert places(of, within).tolist() == [2, -1, 1, 0, -1]
    assert places(of, Space("none", torch.zeros(0, dtype=torch.int64))).tolist() == [-1] * 5


def test_what_is_sparse_stays_sparse() -> None:
    dense = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    columns = torch.tensor([[5.0], [6.0]])
    both = torch.cat([dense, columns], dim=1)
    plain = beside(dense, columns)
    assert isinstance(plain, torch.Tensor)
    assert torch.equal(plain, both)
    mixed = beside(SparseFeatures.from_dense(dense), columns)
    assert isinstance(mixed, MixedFeatures)
    twice = beside(mixed, columns)
    assert isinstance(twice, MixedFeatures)
    assert torch.equal(twice.dense, torch.cat([columns, columns], dim=1))
    assert torch.equal(torch.cat([mixed.sparse.dense(), mixed.dense], dim=1), both)


def test_multiply_adds_and_parameters_count_the_encodings(bench: Any) -> None:
    model = {"hidden": 16, "layers": 2}
    with_them = bench.run("mlp_encodings", num_walks=1, walk_length=10, dim=8, model=model).outcome.models[0]
    without = bench.run("mlp", model=model).outcome.models[0]
    assert with_them["needs"] == "features+encodings"
    assert with_them["macs"] - without["macs"] == 8 * 16
    assert with_them["parameters"] - without["parameters"] == 8 * 16


def test_encodings_are_those_of_the_runs_seed(scenes: Any) -> None:
    first, second = (method().encoder(scenes["observed"], seed).observed.value for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_directed_graph_gives_along_its_edges() -> None:
    """0 -> 2 only: the unseen node 2 receives from 0, the unseen node 3 (3 -> 0) receives nothing."""
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 0, 3], [1, 0, 2, 0]]), 4)
    space = Space("full", torch.arange(4))
    inputs = Inputs(space, space, graph, torch.zeros(4, 1))
    observed = NodeTable(Space("observed", torch.tensor([1, 0])), torch.tensor([[1.0], [2.0]]))
    assert EncodingTable(observed).encode(inputs).flatten().tolist() == [2.0, 1.0, 2.0, 0.0]
    assert replace(inputs, features=beside(inputs.features, EncodingTable(observed).encode(inputs))).features.shape == (
        4,
        2,
    )
