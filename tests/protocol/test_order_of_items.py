"""On every data set at hand, ids and places say no more of labels than a random order does."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from gkdbench.data.catalogue import names
from gkdbench.data.datasets import available
from gkdbench.data.splits import SplitTask, prepare, prepare_named, supported_splits
from gkdbench.data.task import Task
from gkdbench.errors import UserError
from gkdbench.metrics import score
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.renumbering import renumbered

ORDERS = 200
Labels = np.ndarray


def nearest(train_ids: np.ndarray, labels: Labels, ids: np.ndarray) -> Labels:
    """The label of the training item whose id is nearest."""
    order = np.argsort(train_ids)
    known = train_ids[order]
    right = np.searchsorted(known, ids).clip(1, len(known) - 1) if len(known) > 1 else np.zeros(len(ids), dtype=int)
    closer = right - (np.abs(ids - known[right - 1]) <= np.abs(ids - known[right])) if len(known) > 1 else right
    found: Labels = labels[order][closer]
    return found


def same_place(labels: Labels, count: int) -> Labels:
    """The label of the training item at the same share of the list."""
    found: Labels = labels[((np.arange(count) + 0.5) / count * len(labels)).astype(int)]
    return found


def value(metric: str, guessed: Labels, truth: Labels) -> float:
    """The score of guessed labels; unknown ones are guessed as one half."""
    if metric == "accuracy":
        return float((guessed == truth).mean())
    guess = np.nan_to_num(guessed, nan=0.5)
    return score(metric, guess if metric == "rocauc" else guess >= 0.5, truth)


def scores(
    problem: SplitTask, column: str, train_ids: np.ndarray, train: np.ndarray, ids: np.ndarray, test: np.ndarray
) -> tuple[float, float]:
    """Scores of both rules; the items are given as ids, and by the order in which they are handed over."""
    labels, metric = problem.task.labels.numpy(), problem.task.metric
    by_id = value(metric, nearest(train_ids, labels[train], ids), labels[test])
    return by_id, value(metric, same_place(labels[train], len(test)), labels[test])


def figures(problem: SplitTask) -> Iterator[tuple[str, tuple[float, float], tuple[float, float]]]:
    """Per column: the scores of both rules under the numbers that a method sees, and the limit of each: mean and four
    standard deviations under random orders of all items."""
    before = make_evaluation_graphs(problem)
    new = renumbered(before, problem)
    train = before.train.ids.numpy()
    for old, handed in zip(before.scored_sets, new.graphs.scored_sets, strict=True):
        test, place = old.items.ids.numpy(), new.place
        got = scores(
            problem,
            old.column,
            new.graphs.train.ids.numpy(),
            train[place["train"]],
            handed.items.ids.numpy(),
            test[place[old.column]],
        )
        rng, drawn = np.random.default_rng(0), []
        for _ in range(ORDERS):
            number = rng.permutation(problem.task.num_items)
            one, two = train[np.argsort(number[train])], test[np.argsort(number[test])]
            drawn.append(scores(problem, old.column, number[one], one, number[two], two))
        limit = np.mean(drawn, axis=0) + 4 * np.std(drawn, axis=0)
        yield old.column, got, (float(limit[0]), float(limit[1]))


BUILT_IN = [
    ("digits-knn", "builtin-random-ind20"),
    ("digits-grid", "random-80-10-10"),
    ("csbm:n=600", "builtin-random"),
]


@pytest.mark.parametrize(("dataset", "split"), BUILT_IN)
def test_built_in_sets(dataset: str, split: str) -> None:
    for column, got, limit in figures(prepare_named(dataset, split)):
        assert got[0] <= limit[0] and got[1] <= limit[1], (column, got, limit)


AT_HAND = [(name, split) for name in names() if available(name) for split in supported_splits(name)]


@pytest.mark.full
@pytest.mark.skipif(not os.environ.get("GKDBENCH_DATA"), reason="raw data are absent")
@pytest.mark.parametrize(("dataset", "split"), AT_HAND)
def test_every_set_at_hand(dataset: str, split: str) -> None:
    try:
        problem = prepare_named(dataset, split)
    except UserError as error:  # a class is too small for this split family
        pytest.skip(str(error))
    for column, got, limit in figures(problem):
        assert got[0] <= limit[0] and got[1] <= limit[1], (column, got, limit)


@pytest.mark.parametrize("rule", [0, 1])
def test_a_file_that_lists_classes_in_order_would_be_found(rule: int) -> None:
    """Without new numbers, both rules are far above the limit on a set whose items are listed class by class."""
    problem = prepare_named("digits-grid", "random-80-10-10")
    labels, split = problem.task.labels.numpy(), problem.split
    order = np.argsort(labels, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    train, test = (part[np.argsort(number[part])] for part in (split.train, split.test))
    got = scores(problem, "graph", number[train], train, number[test], test)
    ((_, _, limit),) = figures(problem)
    assert got[rule] > limit[rule] + 0.5


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
    """With the order of the file the nearest id names nearly every class; with the new numbers it guesses."""
    problem = listed_by_class(kind)
    ((column, got, limit),) = figures(problem)
    assert max(limit) < 0.7
    before = make_evaluation_graphs(problem)
    train, test = before.train.ids.numpy(), before.scored_sets[0].items.ids.numpy()
    assert scores(problem, column, train, train, test, test)[0] > 0.9  # without new numbers: the attack succeeds
    assert got[0] <= limit[0] and got[1] <= limit[1] and max(got) <= max(limit)
