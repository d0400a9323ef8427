"""Predictors answer in evaluation mode; states survive their bytes (docs/protocol.md, trap 8)."""

import torch
from gkdkernels.graph import CSRGraph
from torch import nn

from gkdbench.data.nodes import NodeSet, Space
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, state_bytes, state_from_bytes, state_of, state_sha256
from gkdbench.training.models import as_predictor, backbone_config


def _inputs(n: int = 12, d: int = 5) -> Inputs:
    space = Space("dozen", torch.arange(n))
    ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    graph = CSRGraph.from_edge_index(torch.cat([ring, ring.flip(0)], dim=1), n, True)
    return Inputs(space, space, graph, torch.randn(n, d, generator=torch.Generator().manual_seed(0)))


def _predictor(backbone: str, dropout: float = 0.5) -> Predictor:
    config = backbone_config(backbone, {"dropout": dropout})
    return as_predictor(config, config.build(5, 3, Randomness(0)), 3)


def test_two_evaluations_are_identical_and_the_mode_is_restored() -> None:
    inputs = _inputs()
    for backbone in ("mlp", "gcn", "gat", "sage", "appnp"):
        predictor = _predictor(backbone, dropout=0.6)
        predictor.module.train()
        first, second = predictor.evaluate(inputs), predictor.evaluate(inputs)
        assert torch.equal(first, second)
        assert predictor.module.training
        assert not first.requires_grad


def test_dropout_is_on_in_a_plain_call() -> None:
    """The guard of the test above: with dropout on, the answers would have differed."""
    predictor, inputs = _predictor("mlp"), _inputs()
    predictor.module.train()
    predictor.module.randomness.step = 1
    first = predictor(inputs)
    predictor.module.randomness.step = 2
    assert not torch.equal(first, predictor(inputs))


def test_the_mode_is_restored_when_the_module_fails() -> None:
    class Failing(nn.Module):
        def forward(self, *_: object) -> torch.Tensor:
            raise RuntimeError("no")

    predictor = Predictor(Failing())
    try:
        predictor.evaluate(_inputs())
    except RuntimeError:
        assert predictor.module.training


def test_some_items_are_rows_of_all_items() -> None:
    inputs = _inputs()
    some = NodeSet(inputs.space, torch.tensor([7, 2, 2]))
    for backbone in ("mlp", "gcn"):
        predictor = _predictor(backbone)
        torch.testing.assert_close(predictor.evaluate(inputs, some), predictor.evaluate(inputs)[some.position])


def test_preparation_runs_once_per_scene() -> None:
    seen: list[str] = []

    def prepare(inputs: Inputs) -> Inputs:
        seen.append(inputs.space.name)
        return inputs

    predictor, inputs = _predictor("mlp"), _inputs()
    predictor.prepare = prepare
    predictor.evaluate(inputs)
    predictor.evaluate(inputs)
    assert seen == ["dozen"]


def test_a_state_survives_its_bytes_with_buffers_and_scalars() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    module(torch.randn(6, 3))
    state = state_of(module)
    again = state_from_bytes(state_bytes(state), state)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) and again[name].dtype == state[name].dtype for name in state)
    assert state_sha256(again) == state_sha256(state)


def test_the_hash_covers_names_shapes_dtypes_and_values() -> None:
    base = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3, dtype=torch.float64)}]
    others.append({"a": torch.zeros(2, 3).index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(1e-45))})
    assert len({state_sha256(state) for state in [base, *others]}) == 5


def test_a_state_is_a_copy() -> None:
    module = nn.Linear(2, 2)
    state = state_of(module)
    with torch.no_grad():
        module.weight.add_(1)
    assert not torch.equal(state["weight"], module.weight)
