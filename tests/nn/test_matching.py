"""Matched widths of MLP controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkdbench.errors import UserError
from gkdbench.nn.gcn import GCNConfig
from gkdbench.nn.matching import match_macs, match_parameters, mlp_parameters
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import parameter_count
from gkdbench.nn.parts import Norm
from gkdbench.nn.random import Randomness


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_formula_counts_the_model(norm: Norm, layers: int) -> None:
    config = MLPConfig(hidden=17, layers=layers, norm=norm)
    assert mlp_parameters(config, 23, 5) == parameter_count(config.build(23, 5, Randomness(0)))


@settings(max_examples=50, deadline=None)
@given(target=st.integers(200_000, 10**8), layers=st.integers(2, 5), inputs=st.integers(1, 100))
def test_within_one_percent(target: int, layers: int, inputs: int) -> None:
    config = MLPConfig(layers=layers)
    matched = match_parameters(target, config, inputs, 7)
    assert abs(mlp_parameters(matched, inputs, 7) / target - 1) <= 0.01
    work = match_macs(target, config, inputs + 0.5, 7)
    assert abs(work.macs(inputs, 7, 2, 0, 2 * inputs + 1) / (2 * target) - 1) <= 0.01


def test_matches_a_gcn_and_keeps_the_other_fields() -> None:
    target = parameter_count(GCNConfig(hidden=64).build(1433, 7, Randomness(0)))
    matched = match_parameters(target, MLPConfig(layers=3, dropout=0.3), 1433, 7)
    built = matched.build(1433, 7, Randomness(0))
    assert abs(parameter_count(built) / target - 1) <= 0.01
    assert (matched.layers, matched.dropout) == (3, 0.3)
    assert built(torch.zeros(2, 1433)).shape == (2, 7)


def test_refusals() -> None:
    with pytest.raises(UserError, match="no width to match parameters with"):
        match_parameters(1000, MLPConfig(layers=1), 10, 3)
    with pytest.raises(UserError, match="comes within 1 % of 2100 parameters, got none; the nearest, 1, has"):
        match_parameters(2100, MLPConfig(), 1433, 7)
