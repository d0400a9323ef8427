"""Batches of graphs, and the scenes of every setting against subgraphs made by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gkdkernels.graph import SparseFeatures

from gkdbench.data.task import Task
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.inputs import Inputs

Get = Callable[[str], Any]


def dense(inputs: Inputs) -> np.ndarray:
    """[N, N] counts of edges, row: destination."""
    matrix = np.zeros((len(inputs.space), len(inputs.space)), np.int64)
    np.add.at(matrix, (inputs.graph.row.numpy(), inputs.graph.index.numpy()), 1)
    return matrix


def whole(task: Task) -> np.ndarray:
    matrix = np.zeros((task.num_nodes, task.num_nodes), np.int64)
    np.add.at(matrix, (task.graph.row.numpy(), task.graph.index.numpy()), 1)
    return matrix


def nodes_of(borders: torch.Tensor, graphs: np.ndarray) -> np.ndarray:
    at = borders.tolist()
    return np.concatenate([np.arange(at[graph], at[graph + 1]) for graph in graphs.tolist()])


def by_hand(task: Task, ids: np.ndarray) -> np.ndarray:
    return whole(task)[np.ix_(ids, ids)]


def test_transductive_training_sees_the_whole_graph(ready: Get) -> None:
    case = ready("tran")
    assert set(case.evaluation_graphs.graphs) == {"observed"}
    observed = case.evaluation_graphs.graphs["observed"]
    assert (dense(observed) == whole(case.problem.task)).all()
    assert observed.everything.ids.tolist() == list(range(case.problem.task.num_nodes))
    assert case.evaluation_graphs.test_ids("tran").tolist() == case.problem.split.test.tolist()


def test_inductive_training_sees_the_subgraph_induced_on_all_but_the_unseen(ready: Get) -> None:
    case = ready("ind")
    split, observed = case.problem.split, case.evaluation_graphs.graphs["observed"]
    ids = observed.space.ids.numpy()
    # by id: the released order (train, val by class, the rest) tells validation nodes and their labels by position
    assert ids.tolist() == sorted(set(range(case.problem.task.num_nodes)) - set(split.unseen.tolist()))
    assert (dense(observed) == by_hand(case.problem.task, ids)).all()
    assert torch.equal(observed.features, case.problem.task.features[ids])
    assert case.evaluation_graphs.train.ids.tolist() == split.train.tolist()
    assert case.evaluation_graphs.val.ids.tolist() == split.val.tolist()
    hidden = set(split.unseen.tolist())
    seen_test = [node for node in split.test.tolist() if node not in hidden]
    assert case.evaluation_graphs.test_ids("tran").tolist() == seen_test
    assert (
        case.evaluation_graphs.test_ids("ind").tolist()
        == case.evaluation_graphs.test_ids("coldstart").tolist()
        == split.unseen.tolist()
    )


def test_coldstart_removes_every_edge_of_unseen_nodes_but_their_loops(ready: Get) -> None:
    case = ready("ind")
    wanted = whole(case.problem.task)
    unseen = case.problem.split.unseen
    loops = np.diag(wanted).copy()
    wanted[unseen, :] = 0
    wanted[:, unseen] = 0
    np.fill_diagonal(wanted, loops)
    assert (dense(case.evaluation_graphs.graphs["coldstart"]) == wanted).all()
    assert loops[unseen].all()  # or the test would not see a loop that is lost
    assert (dense(case.evaluation_graphs.graphs["full"]) == whole(case.problem.task)).all()


def test_unseen_nodes_are_scored_after_training_only(ready: Get) -> None:
    live = {scored_set.column: scored_set.live for scored_set in ready("ind").evaluation_graphs.scored_sets}
    assert live == {"tran": True, "ind": False, "coldstart": False}
    assert [scored_set.live for scored_set in ready("graph").evaluation_graphs.scored_sets] == [False]


def test_nodes_in_no_part_are_observed(ready: Get) -> None:
    problem = ready("ind").problem
    fewer = replace(problem, split=replace(problem.split, test=problem.split.test[:-5]))
    left_out = problem.split.test[-5:]
    assert not set(left_out) & set(problem.split.unseen)
    assert set(left_out) <= set(make_evaluation_graphs(fewer).graphs["observed"].space.ids.tolist())


def test_graph_tasks_have_scenes_of_their_own_graphs(ready: Get) -> None:
    case = ready("graph")
    task, split = case.problem.task, case.problem.split
    for scene, ids in (("observed", split.train), ("val", split.val), ("test", split.test)):
        inputs = case.evaluation_graphs.graphs[scene]
        assert inputs.items.ids.tolist() == ids.tolist()
        nodes = nodes_of(task.graph_ptr, ids)
        assert inputs.space.ids.tolist() == nodes.tolist()
        assert (dense(inputs) == by_hand(task, nodes)).all()
    assert case.evaluation_graphs.val_graph == "val"


def test_take_is_the_block_diagonal_of_the_chosen_graphs_in_their_order(ready: Get) -> None:
    inputs = ready("graph").evaluation_graphs.graphs["observed"]
    chosen = torch.tensor([5, 0, 17, 5])
    batch = inputs.take(chosen)
    nodes = nodes_of(inputs.segments, chosen.numpy())
    assert batch.space.ids.tolist() == inputs.space.ids[nodes].tolist()
    assert batch.items.ids.tolist() == inputs.items.ids[chosen].tolist()
    assert torch.equal(batch.features, inputs.features[nodes])
    sizes = (inputs.segments[chosen + 1] - inputs.segments[chosen]).tolist()
    assert batch.segments.tolist() == [0, *np.cumsum(sizes)]
    blocks, matrix = dense(inputs), dense(batch)
    for block, graph in enumerate(chosen.tolist()):
        here = slice(int(batch.segments[block]), int(batch.segments[block + 1]))
        there = slice(int(inputs.segments[graph]), int(inputs.segments[graph + 1]))
        assert (matrix[here, here] == blocks[there, there]).all()
        matrix[here, here] = 0
    assert not matrix.any()


def test_take_carries_edge_features_in_edge_order(ready: Get) -> None:
    inputs = ready("graph").evaluation_graphs.graphs["observed"]
    ids = inputs.space.ids
    ends = torch.stack([ids[inputs.graph.index.long()], ids[inputs.graph.row.long()]], dim=1)
    batch = replace(inputs, edge_features=ends).take(torch.tensor([9, 3]))
    here = batch.space.ids
    assert torch.equal(
        batch.edge_features, torch.stack([here[batch.graph.index.long()], here[batch.graph.row.long()]], dim=1)
    )


def test_take_of_nothing_and_take_of_nodes(ready: Get) -> None:
    empty = ready("graph").evaluation_graphs.graphs["observed"].take(torch.empty(0, dtype=torch.int64))
    assert (len(empty.items), len(empty.space), empty.graph.num_edges) == (0, 0, 0)
    with pytest.raises(ValueError, match="graph task"):
        ready("tran").evaluation_graphs.graphs["observed"].take(torch.tensor([0]))


def test_scenes_keep_sparse_features_and_edge_features(ready: Get) -> None:
    """Sparse features and edge attributes are cut like dense features and edges."""
    problem = ready("ind").problem
    ends = torch.stack([problem.task.graph.index, problem.task.graph.row], dim=1).float()
    sparse = SparseFeatures.from_dense(problem.task.features)
    scenes = make_evaluation_graphs(
        replace(problem, task=problem.task.with_(features=sparse, edge_features=ends))
    ).graphs
    for name, inputs in scenes.items():
        ids = inputs.space.ids
        assert isinstance(inputs.features, SparseFeatures)
        assert torch.equal(inputs.features.dense(), problem.task.features[ids]), name
        pairs = torch.stack([ids[inputs.graph.index.long()], ids[inputs.graph.row.long()]], dim=1)
        assert torch.equal(inputs.edge_features, pairs.float()), name
