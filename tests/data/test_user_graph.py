"""Task.from_arrays and Task.from_pyg: what goes in comes out, and bad input is named."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkdbench.data.consistency import check_task
from gkdbench.data.splits import prepare
from gkdbench.data.task import Task
from gkdbench.errors import UserError


@st.composite
def graphs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(edges [2, E] without repeats, features [N, D], labels [N])."""
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), unique=True, max_size=30))
    edges = np.array(pairs, np.int64).reshape(-1, 2).T
    values = st.floats(-1e3, 1e3, width=32)
    features = np.array(draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=n, max_size=n)), np.float32)
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    return edges, features, labels


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_edges_features_and_labels_come_back(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    edges, features, labels = data
    task = Task.from_arrays("mine", edges, features, labels)
    back = set(zip(task.graph.index.tolist(), task.graph.row.tolist(), strict=True))
    assert back == set(zip(*edges.tolist(), strict=True)) and task.graph.num_edges == edges.shape[1]
    dense = task.features if isinstance(task.features, torch.Tensor) else task.features.dense()
    assert np.array_equal(dense.numpy(), features)
    assert task.labels.tolist() == labels.tolist()
    assert task.graph.symmetric == (back == {(b, a) for a, b in back})


@given(graphs(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_of_edges_and_storage_of_features_leave_the_hash(data: Any, random: Any) -> None:
    edges, features, labels = data
    order = list(range(edges.shape[1]))
    random.shuffle(order)
    one = Task.from_arrays("mine", edges, features, labels)
    assert Task.from_arrays("yours", edges[:, order], sp.csr_array(features), labels).content_hash == one.content_hash
    other = features.copy()
    other[0, 0] += 1
    assert Task.from_arrays("mine", edges, other, labels).content_hash != one.content_hash


def test_lists_tensors_and_sparse_matrices_are_taken() -> None:
    wide = sp.random_array((4, 50), density=0.05, rng=np.random.default_rng(0))
    listed = Task.from_arrays("a", [[0, 1], [1, 2]], wide, [0, 1, 0, -1])
    tensors = Task.from_arrays(
        "b", torch.tensor([[0, 1], [1, 2]]), torch.from_numpy(wide.toarray()), torch.tensor([0, 1, 0, -1])
    )
    assert listed.content_hash == tensors.content_hash
    assert not isinstance(listed.features, torch.Tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_index": [[0, 1, 2]]}, r"edge_index: expected shape \[2, E\].*got \[1, 3\]"),
        ({"edge_index": [[0, 9], [1, 1]]}, r"edge_index: expected nodes in \[0, 4\).*got 0..9"),
        ({"edge_index": [[0.5], [1.0]]}, "edge_index: expected integers, got float64"),
        ({"edge_index": [[0, 0], [1, 1]]}, "expected each edge once, got 1 edges twice"),
        ({"features": [1.0, 2.0, 3.0, 4.0]}, r"features: expected shape \[N, D\]"),
        ({"features": [["a"]] * 4}, "features: expected numbers"),
        ({"features": [[np.nan]] * 4}, "features: expected finite numbers, got 4 NaN"),
        ({"labels": [0, 1]}, r"labels: expected 4 rows"),
        ({"labels": [0, 1, 0, -2]}, "labels: expected classes 0, 1"),
        ({"labels": [-1, -1, -1, -1]}, "one or more known"),
        ({"labels": [[0.5]] * 4}, "only 0, 1 and NaN"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "labels: expected integers"),
        ({"num_classes": 1}, "num_classes: expected 2 or more for labels up to 1, got 1"),
        ({"kind": "edge"}, "kind: expected 'node' or 'graph'"),
        ({"kind": "graph"}, r"graph_ptr: expected \[G \+ 1\].*got None"),
        ({"graph_ptr": [0, 2]}, "graph_ptr: expected values rising from 0 to N=4"),
        ({"graph_ptr": [0, 1, 4]}, "1 edges that join nodes of different graphs"),
        ({"edge_features": [[1.0]]}, "edge_features: expected 2 rows"),
        ({"splits": {"train": [0], "test": [1]}}, "splits: expected the keys"),
        ({"splits": {"train": [0], "val": [1], "test": [0]}}, "expected each item in one part only, got an overlap"),
        (
            {"splits": {"train": [0], "val": [1], "test": [7]}},
            r"the test split: expected one or more ids in \[0, 4\), got \[7\]",
        ),
        ({"splits": {"train": [True], "val": [1], "test": [2]}}, "the train mask: expected 4 entries"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"edge_index": [[0, 1], [1, 2]], "features": [[1.0]] * 4, "labels": [0, 1, 0, 1]}
    Task.from_arrays("mine", **good)
    with pytest.raises(UserError, match=message):
        Task.from_arrays("mine", **(good | change))


def test_edge_features_follow_their_edges() -> None:
    task = Task.from_arrays(
        "mine", [[2, 0, 1], [0, 1, 0]], np.ones((3, 1)), [0, 1, 0], edge_features=np.array([20.0, 1.0, 10.0])
    )
    assert task.edge_features is not None
    carried = zip(task.graph.index.tolist(), task.graph.row.tolist(), task.edge_features[:, 0].tolist(), strict=True)
    assert set(carried) == {(2, 0, 20.0), (0, 1, 1.0), (1, 0, 10.0)}


def test_own_splits_by_mask_or_ids() -> None:
    masks = {"train": np.arange(10) < 4, "val": [4, 5], "test": [9, 6, 7, 8]}
    task = Task.from_arrays("mine", [[0], [1]], np.ones((10, 1)), np.arange(10) % 2, splits=[masks, masks])
    split = prepare(task, "own", 1).split
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert len(prepare(task, "own-ind20", 7).split.unseen) == 0  # a fifth of four, rounded down
    with pytest.raises(UserError, match="came with 2 'own' splits: expected an index of 0 to 1, got 2"):
        prepare(task, "own", 2)


def test_from_pyg_reads_a_graph_and_its_masks() -> None:
    data = SimpleNamespace(
        x=torch.eye(4),
        edge_index=torch.tensor([[0, 1, 3], [1, 0, 2]]),
        y=torch.tensor([0, 1, 1, 0]),
        edge_attr=torch.tensor([[1.0], [2.0], [3.0]]),
        train_mask=torch.tensor([[True, False], [False, True], [False, False], [False, False]]),
        val_mask=torch.tensor([[False, True], [True, False], [False, False], [False, False]]),
        test_mask=torch.tensor([False, False, True, True]),
    )
    task = Task.from_pyg(data, "mine")
    assert (task.kind, task.num_nodes, task.graph.num_edges, task.graph_ptr) == ("node", 4, 3, None)
    assert prepare(task, "own", 1).split.train.tolist() == [1]
    assert prepare(task, "own", 1).split.test.tolist() == [2, 3]


def test_from_pyg_joins_graphs_block_by_block() -> None:
    graphs = [
        SimpleNamespace(
            x=torch.ones(n, 2), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([label]), edge_attr=None
        )
        for n, label in ((2, 0), (3, 2))
    ]
    task = Task.from_pyg(graphs, "mine")
    assert task.kind == "graph" and task.graph_ptr is not None and task.graph_ptr.tolist() == [0, 2, 5]
    assert sorted(zip(task.graph.index.tolist(), task.graph.row.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
    ]
    assert task.labels.tolist() == [0, 2] and task.num_classes == 3
    tasks = [SimpleNamespace(x=g.x, edge_index=g.edge_index, y=torch.tensor([[1.0, float("nan")]])) for g in graphs]
    assert Task.from_pyg(tasks, "several").multi_label
    with pytest.raises(UserError, match="1 of 2 Data objects without 'y'"):
        Task.from_pyg([graphs[0], SimpleNamespace(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0).long())], "mine")
    with pytest.raises(UserError, match="got no graphs"):
        Task.from_pyg([], "mine")


SPLIT = {"train": [0, 1], "val": [2], "test": [3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [[1e300]] * 4}, "numbers that float32 can hold, got 1e\\+300"),
        ({"labels": [0, 1, 0, -1]}, "test: expected labelled items, got 1 without a label"),
        ({"labels": [-1, 1, 0, 1]}, "train: expected labelled items"),
        ({"labels": np.array([[0.0], [1.0], [np.nan], [1.0]])}, "val: expected labelled items"),
        ({"splits": SPLIT | {"train": [0, 0]}}, "train: expected each item once, got 1 twice"),
        ({"splits": SPLIT | {"val": [0]}}, "1 items of train are in val, too"),
        (
            {"splits": SPLIT | {"train": np.array([1, 1, 0, 0], np.uint8)}},
            r"a mask of booleans, got 4 uint8.*astype\(bool",
        ),
        ({"labels": [0.0, np.nan, 0.0, 1.0]}, "-1 for unknown, got float64 with 1 NaN"),
        ({"labels": np.array([[0], [2], [1], [1]])}, r"expected \[4\] classes.*labels\[:, 0\]"),
        ({"metric": "acc"}, "unknown metric 'acc'; did you mean 'accuracy'"),
        ({"metric": "micro_f1"}, "metric 'micro_f1': expected several labels an item, got 2 classes; try accuracy"),
        ({"metric": "rocauc", "num_classes": 3}, "metric 'rocauc': expected two classes"),
        ({"metric": "accuracy", "labels": np.ones((4, 2))}, "expected one class an item"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"edge_index": [[0, 1], [1, 2]], "features": [[1.0]] * 4, "labels": [0, 1, 0, 1]}
    Task.from_arrays("mine", **good, splits=SPLIT)
    with pytest.raises(UserError, match=message):
        Task.from_arrays("mine", **(good | {"splits": SPLIT} | change))


def test_integers_of_one_column_are_two_classes() -> None:
    task = Task.from_arrays("mine", [[0], [1]], np.ones((4, 1)), np.array([[0], [1], [1], [0]]))
    assert (task.multi_label, task.num_classes, task.labels.tolist()) == (False, 2, [0, 1, 1, 0])


@pytest.mark.parametrize("form", ["coo", "csr", "bfloat16"])
def test_features_come_in_any_form_of_a_tensor(form: str) -> None:
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    given = {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "bfloat16": dense.bfloat16()}[form]
    plain = Task.from_arrays("mine", [[0], [1]], dense, [0, 1, 0, 1])
    assert Task.from_arrays("mine", [[0], [1]], given, [0, 1, 0, 1]).content_hash == plain.content_hash


def pyg(**more: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"x": torch.eye(2), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])} | more)


class Dataset(list[SimpleNamespace]):
    """As torch_geometric's data sets: a sequence of graphs that also answers for all of them together."""

    edge_index, x, y = torch.zeros(2, 0, dtype=torch.long), torch.eye(4), torch.tensor([1, 1])


class Batched(SimpleNamespace):
    """As a torch_geometric Batch: one graph that knows its parts."""

    @classmethod
    def from_data_list(cls, parts: list[Any]) -> Any:
        return cls(parts=parts, edge_index=torch.zeros(2, 0), x=torch.eye(4), y=torch.tensor([1, 1]))

    def to_data_list(self) -> Any:
        return self.parts


@pytest.mark.parametrize("several", [Dataset([pyg(), pyg()]), Batched.from_data_list([pyg(), pyg()]), (pyg(), pyg())])
def test_data_sets_and_batches_are_their_graphs(several: Any) -> None:
    task = Task.from_pyg(several, "mine")
    assert (task.kind, task.num_items, task.num_nodes) == ("graph", 2, 4)


class Typed(SimpleNamespace):
    def to_homogeneous(self) -> None: ...


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Typed(), r"got a Typed; try data.to_homogeneous\(\)"),
        (pyg(edge_index=None, adj_t=1), "without 'edge_index'; it has adj_t"),
        ([pyg(), pyg(x=torch.eye(3))], r"x: expected \[2\] columns in every graph.*got \[3\] in graph 1"),
        ([pyg(), pyg(y=torch.tensor([0, 1]))], r"y: expected \[1\] columns.*got \[2\] in graph 1"),
        (pyg(train_mask=1, test_mask=1, y=torch.tensor([0, 1])), "got none of val_mask"),
        ([], "got no graphs"),
    ],
)
def test_what_from_pyg_cannot_take_is_named(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Task.from_pyg(data, "mine")


def test_a_split_of_files_that_nobody_registered_is_checked() -> None:
    task = Task.from_arrays("mine", [[0], [1]], np.ones((4, 1)), [0, 1, 0, 1])
    leaking = task.with_(official={f"official-10/0/{part}": np.array([0, 1]) for part in ("train", "val", "test")})
    check_task(task)
    with pytest.raises(UserError, match=r"split .official-10/0.: .* 2 items of train are in val"):
        check_task(leaking)
    with pytest.raises(UserError, match="features: expected 4 rows, one for each node, got 2"):
        check_task(task.with_(features=torch.ones(2, 1)))
    with pytest.raises(UserError, match="labels: expected 4 rows"):
        check_task(task.with_(labels=torch.ones(3, dtype=torch.int64)))
