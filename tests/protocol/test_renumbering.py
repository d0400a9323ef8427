"""New numbers of items: a permutation of everything, the way back, and nothing of the labels in ids or places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels.graph import SparseFeatures

from gkdbench.data.splits import prepare
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.renumbering import renumbered
from gkdbench.protocol.view_io import read_bundle, read_later

SETTINGS = ["tran", "ind", "graph", "multilabel"]
Get = Callable[[str], Any]


def edges(inputs: Inputs, name_of: dict[int, int]) -> set[tuple[int, int, tuple[float, ...]]]:
    """Edges between original node ids, with their features."""
    ids = inputs.space.ids.tolist()
    features = inputs.edge_features
    more = [()] * inputs.graph.num_edges if features is None else [tuple(row) for row in features.tolist()]
    ends = zip(inputs.graph.index.tolist(), inputs.graph.row.tolist(), more, strict=True)
    return {(name_of[ids[j]], name_of[ids[i]], extra) for j, i, extra in ends}


def original_ids(before: EvaluationGraphs, after: EvaluationGraphs) -> dict[int, int]:
    """New node number -> id, read off the rows of features, which are all different."""
    found: dict[int, int] = {}
    for name, inputs in before.graphs.items():
        rows = {tuple(row): i for row, i in zip(dense(inputs), inputs.space.ids.tolist(), strict=True)}
        moved = after.graphs[name]
        found |= {new: rows[tuple(row)] for row, new in zip(dense(moved), moved.space.ids.tolist(), strict=True)}
    return found


def dense(inputs: Inputs) -> list[list[float]]:
    x = inputs.features
    rows: list[list[float]] = (x.dense() if isinstance(x, SparseFeatures) else x).tolist()
    return rows


@pytest.mark.parametrize("setting", ["tran", "ind", "multilabel"])
def test_every_graph_is_the_same_graph_under_other_numbers(ready: Get, setting: str) -> None:
    case = ready(setting)
    names = original_ids(case.evaluation_graphs, case.handed)
    assert sorted(names) == sorted(names.values()) and any(new != old for new, old in names.items())
    plain = {i: i for i in names}
    for name, inputs in case.handed.graphs.items():
        assert edges(inputs, names) == edges(case.evaluation_graphs.graphs[name], plain)
        assert inputs.space.ids.tolist() == sorted(inputs.space.ids.tolist())


def test_graphs_of_a_graph_task_keep_their_nodes_edges_and_features(ready: Get) -> None:
    case = ready("graph")
    for name, after in case.handed.graphs.items():
        before, place = case.evaluation_graphs.graphs[name], {"observed": "train", "val": "val", "test": "graph"}[name]
        for new, old in enumerate(case.evaluation_graphs.place[place]):
            one, two = before.take(torch.tensor([old])), after.take(torch.tensor([new]))
            assert one.graph.num_edges == two.graph.num_edges and one.features.shape == two.features.shape
            assert torch.equal(one.features.sort(0).values, two.features.sort(0).values)
            assert torch.equal(one.graph.degree.sort().values, two.graph.degree.sort().values)


@pytest.mark.parametrize("setting", SETTINGS)
def test_predictions_come_back_in_the_order_of_the_split(ready: Get, setting: str) -> None:
    """A method that answers with the original label of each item it is asked for gets every item right."""
    case = ready(setting)
    labels = case.problem.task.labels
    for before, after in zip(case.evaluation_graphs.scored_sets, case.handed.scored_sets, strict=True):
        answers = labels[before.items.ids[torch.from_numpy(case.evaluation_graphs.place[before.column])]].numpy()
        back = case.evaluation_graphs.in_order(before.column, answers)
        np.testing.assert_array_equal(back, labels[before.items.ids].numpy())
        both = case.evaluation_graphs.in_order(before.column, np.stack([answers, answers]), axis=1)
        np.testing.assert_array_equal(both[1], back)
        assert after.items.position.tolist() == sorted(after.items.position.tolist())


def test_the_numbers_are_those_of_the_split_alone(ready: Get) -> None:
    case = ready("ind")
    again = renumbered(make_evaluation_graphs(case.problem), case.problem)
    for column, place in again.place.items():
        np.testing.assert_array_equal(place, case.evaluation_graphs.place[column])
    other = prepare(case.problem.task, case.problem.split.id, 1)
    assert original_ids(make_evaluation_graphs(other), renumbered(make_evaluation_graphs(other), other).graphs) != (
        original_ids(case.evaluation_graphs, case.handed)
    )


def test_what_is_read_after_fit_lies_apart(ready: Get, tmp_path: Path) -> None:
    case = ready("ind")
    elsewhere = tmp_path / "elsewhere"
    (case.folder / "later").rename(elsewhere)
    try:
        given = read_bundle(case.folder)
        assert len(read_later(given, elsewhere).graph("full").space) == case.problem.task.num_nodes
    finally:
        elsewhere.rename(case.folder / "later")
