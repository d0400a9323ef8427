"""The mean of several models as one model: its probabilities are the mean of theirs."""

from __future__ import annotations

import pytest
import torch

from gkdbench.methods.baselines.ensemble import MeanOfModels, mean_predictor
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_the_mean_of_the_members(multi_label: bool) -> None:
    members = [MLPConfig(hidden=5, layers=2).build(4, 3, Randomness(seed)).eval() for seed in range(3)]
    x = 5 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    z = MeanOfModels(members, multi_label=multi_label)(x, None, None)
    probability = torch.sigmoid if multi_label else lambda logits: logits.softmax(1)
    wanted = torch.stack([probability(member(x, None, None)) for member in members]).mean(0)
    torch.testing.assert_close(probability(z), wanted)


def test_edge_features_go_to_those_that_read_them() -> None:
    class Reader(torch.nn.Module):
        def __init__(self, edge_width: int) -> None:
            super().__init__()
            self.edge_width = edge_width

        def forward(self, x: torch.Tensor, graph: None, segments: None, *edges: torch.Tensor) -> torch.Tensor:
            return x + sum((edge.sum() for edge in edges), torch.zeros(()))

    both = MeanOfModels([Reader(0), Reader(2)], multi_label=True)
    assert both.edge_width == 2
    x = torch.zeros(1, 1)
    assert both(x, None, None, torch.ones(2)).item() == pytest.approx(
        torch.logit(torch.tensor(1 / 4 + 0.4403985)).item()
    )


def test_needs_and_cost_are_those_of_all_members() -> None:
    def member(hops: int | None) -> Predictor:
        return Predictor(torch.nn.Linear(2, 2), needs="graph" if hops else "features", hops=hops, macs=lambda _: 10)

    mixed = mean_predictor([member(None), member(2), member(1)], multi_label=False)
    assert (mixed.needs, mixed.hops, mixed.parameters) == ("graph", 2, 18)
    assert mixed.macs is not None and mixed.macs(None) == 30  # type: ignore[arg-type]
    plain = mean_predictor([member(None)], multi_label=False)
    assert (plain.needs, plain.hops) == ("features", None)
