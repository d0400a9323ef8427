"""Disturbed inputs: how much changes, what stays, and what the draws depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures
from torch import Tensor

from gkdbench.protocol.corruption import CLEAN, Corruption, corrupted, corruptions
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.testing.problems import small_problem

LEVELS = (0.1, 0.5, 0.9)


def noise(level: float) -> Corruption:
    return Corruption("feature_noise", level)


def drop(level: float) -> Corruption:
    return Corruption("edge_drop", level)


def observed(setting: str = "tran") -> Inputs:
    return make_evaluation_graphs(small_problem(setting)).graphs["observed"]


def bags() -> Inputs:
    """The observed graph with bags of words: 8 to 12 of 50 columns a node, low columns far more often."""
    inputs = observed()
    generator = torch.Generator().manual_seed(0)
    length = torch.randint(8, 13, (len(inputs.space),), generator=generator)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
    column = (torch.rand(int(indptr[-1]), generator=generator) ** 3 * 50).long()
    value = (1.0 / length).repeat_interleave(length)
    return replace(inputs, features=SparseFeatures(CSRGraph(indptr, column, 50), value))


def edges(inputs: Inputs) -> set[tuple[int, int]]:
    return set(zip(inputs.graph.index.tolist(), inputs.graph.row.tolist(), strict=True))


def test_a_sweep_begins_with_the_undisturbed_inputs_and_rises() -> None:
    found = corruptions({"edge_drop": [0.5], "feature_noise": [0.9, 0.1]})
    assert [str(how) for how in found] == ["clean=0.0", "feature_noise=0.1", "feature_noise=0.9", "edge_drop=0.5"]
    assert corruptions({}) == []
    inputs = observed()
    assert corrupted(inputs, CLEAN, 0) is inputs


@pytest.mark.parametrize("level", LEVELS)
def test_words_become_other_words_and_bags_keep_their_length_and_sum(level: float) -> None:
    before = bags()
    after = corrupted(before, noise(level), 3)
    one, two = before.features, after.features
    assert isinstance(one, SparseFeatures) and isinstance(two, SparseFeatures)
    assert torch.equal(one.graph.indptr, two.graph.indptr) and torch.equal(one.value, two.value)
    torch.testing.assert_close(one.dense().sum(1), two.dense().sum(1))
    same = float((one.graph.index == two.graph.index).double().mean())
    frequency = torch.bincount(one.graph.index, minlength=50) / one.graph.num_edges
    by_chance = float((frequency**2).sum())  # a word may be replaced by itself
    assert same == pytest.approx(1 - level * (1 - by_chance), abs=0.03)
    assert after.graph is before.graph


def test_at_level_one_only_the_frequency_of_words_is_left() -> None:
    before = bags()
    after = corrupted(before, noise(1.0), 0)
    assert isinstance(before.features, SparseFeatures) and isinstance(after.features, SparseFeatures)
    one, two = (np.bincount(f.graph.index, minlength=50) for f in (before.features, after.features))
    assert np.abs(one - two).sum() / one.sum() < 0.15
    together = np.corrcoef(before.features.graph.index, after.features.graph.index)[0, 1]
    assert abs(together) < 0.06


@pytest.mark.parametrize("level", LEVELS)
def test_dense_entries_take_another_nodes_value_of_the_same_column(level: float) -> None:
    before = observed()
    after = corrupted(before, noise(level), 1)
    assert isinstance(before.features, Tensor) and isinstance(after.features, Tensor)
    assert float((before.features != after.features).double().mean()) == pytest.approx(level, abs=0.03)
    for column in range(before.features.size(1)):
        assert set(after.features[:, column].tolist()) <= set(before.features[:, column].tolist())


@pytest.mark.parametrize("level", LEVELS)
def test_an_edge_goes_with_its_other_direction_and_loops_stay(level: float) -> None:
    before = observed()
    after = corrupted(before, drop(level), 1)
    one, two = edges(before), edges(after)
    assert two < one and {(b, a) for a, b in two} == two
    assert {(a, b) for a, b in one if a == b} <= two
    gone = len(one - two) / sum(a != b for a, b in one)
    assert gone == pytest.approx(level, abs=0.06)
    assert after.features is before.features and after.graph.num_dst == before.graph.num_dst


def test_without_edges_only_loops_are_left() -> None:
    assert all(a == b for a, b in edges(corrupted(observed(), drop(1.0), 0)))


def test_edge_features_go_with_their_edges_in_batches_of_graphs() -> None:
    before = observed("graph")
    named = (before.graph.row * 1000 + before.graph.index).float().unsqueeze(1)
    before = replace(before, edge_features=named)
    after = corrupted(before, drop(0.5), 0)
    assert after.edge_features is not None and 0 < after.graph.num_edges < before.graph.num_edges
    assert torch.equal(after.edge_features[:, 0], (after.graph.row * 1000 + after.graph.index).float())
    assert after.segments is before.segments


@pytest.mark.parametrize("kind", [noise, drop])
def test_draws_depend_on_the_seed_and_levels_are_nested(kind: Callable[[float], Corruption]) -> None:
    inputs = bags()

    def touched(level: float, seed: int) -> Tensor:
        after = corrupted(inputs, kind(level), seed)
        if kind is drop:
            left = edges(after)
            return torch.tensor([edge in left for edge in sorted(edges(inputs))])
        assert isinstance(inputs.features, SparseFeatures) and isinstance(after.features, SparseFeatures)
        return torch.where(inputs.features.graph.index == after.features.graph.index, -1, after.features.graph.index)

    assert torch.equal(touched(0.3, 0), touched(0.3, 0))
    assert not torch.equal(touched(0.3, 0), touched(0.3, 1))
    little, more = touched(0.3, 0), touched(0.7, 0)
    stays = ~little if kind is drop else little >= 0
    assert torch.equal(little[stays], more[stays])


def test_models_that_keep_things_per_numbering_see_another_one() -> None:
    inputs = observed("graph")
    names = {corrupted(inputs, how, 0).space.name for how in (CLEAN, noise(0.1), noise(0.2), drop(0.1))}
    items = {corrupted(inputs, how, 0).items.name for how in (CLEAN, noise(0.1), noise(0.2), drop(0.1))}
    assert len(names) == len(items) == 4
    after = corrupted(observed(), noise(0.1), 0)
    assert after.items is after.space
