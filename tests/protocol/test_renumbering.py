"""New numbers of items: a permutation of everything, the way back, and nothing of the labels in ids or places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels.graph import SparseFeatures

from gkdbench.data.splits import SplitTask, prepare
from gkdbench.data.task import Task
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs, make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.renumbering import Renumbered, renumbered
from gkdbench.protocol.view_io import read_bundle, read_later

SETTINGS = ["tran", "ind", "graph", "multilabel"]
Get = Callable[[str], Any]
ORDERS = 200


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


def by_nearest_id(train_ids: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The label of the training item whose id is nearest."""
    order = np.argsort(train_ids)
    return labels[order][np.abs(ids[:, None] - train_ids[order][None, :]).argmin(1)]


def by_place(labels: np.ndarray, count: int) -> np.ndarray:
    """The label of the training item at the same share of the list."""
    return labels[((np.arange(count) + 0.5) / count * len(labels)).astype(int)]


def accuracies(problem: SplitTask, handed: EvaluationGraphs, place: Any) -> dict[str, tuple[float, float]]:
    """Column -> accuracy of both rules."""
    truth, found = problem.task.labels.numpy(), {}
    before = make_evaluation_graphs(problem)
    order = lambda part, ids: ids if place is None else ids[place[part]]  # noqa: E731
    train = truth[order("train", before.train.ids.numpy())]
    for old, new in zip(before.scored_sets, handed.scored_sets, strict=True):
        wanted = truth[order(old.column, old.items.ids.numpy())]
        nearest = by_nearest_id(handed.train.ids.numpy(), train, new.items.ids.numpy())
        found[old.column] = (float((nearest == wanted).mean()), float((by_place(train, len(wanted)) == wanted).mean()))
    return found


def chance(problem: SplitTask, column: str) -> float:
    """Mean and four standard deviations of the accuracy of both rules under random orders of all items."""
    rng = np.random.default_rng(0)
    truth, graphs = problem.task.labels.numpy(), make_evaluation_graphs(problem)
    train = graphs.train.ids.numpy()
    test = next(w for w in graphs.scored_sets if w.column == column).items.ids.numpy()
    values = []
    for _ in range(ORDERS):
        number = rng.permutation(len(truth))
        by_number = train[np.argsort(number[train])]
        items = test[np.argsort(number[test])]
        values.append((by_nearest_id(number[by_number], truth[by_number], number[items]) == truth[items]).mean())
        values.append((by_place(truth[by_number], len(items)) == truth[items]).mean())
    return float(np.mean(values) + 4 * np.std(values))


def listed_by_class(kind: str) -> SplitTask:
    """A task whose file lists its items class by class, as TU files do."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 300)
    features = rng.normal(size=(900 * (1 if kind == "node" else 3), 4))
    if kind == "node":
        task = Task.from_arrays("sorted", np.array([np.arange(900), np.arange(900)]), features, labels)
        return prepare(task, "node-80-10-10", 0)
    ends = np.arange(2700)
    task = Task.from_arrays(
        "sorted", np.array([ends, ends]), features, labels, kind="graph", graph_ptr=np.arange(0, 2701, 3)
    )
    return prepare(task, "random-80-10-10", 0)


@pytest.mark.parametrize("kind", ["node", "graph"])
def test_ids_and_places_say_nothing_of_classes(kind: str) -> None:
    """With the file's own order both rules name the class of nearly every item; with the new numbers they guess."""
    problem = listed_by_class(kind)
    graphs = make_evaluation_graphs(problem)
    new: Renumbered = renumbered(graphs, problem)
    (column,) = (w.column for w in graphs.scored_sets)
    limit = chance(problem, column)
    assert limit < 0.7
    assert accuracies(problem, graphs, None)[column][0] > 0.9  # without new numbers: the attack succeeds
    assert max(accuracies(problem, new.graphs, new.place)[column]) <= limit
