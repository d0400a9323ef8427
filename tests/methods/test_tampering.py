"""What the method case tampers with: everything out of sight changes, nothing in sight does."""

import numpy as np
import pytest
import torch

from gkdbench.data.splits import SplitTask
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.testing.problems import relabelled, renumbered, small_problem, with_other_unseen


def hidden_nodes(problem: SplitTask) -> torch.Tensor:
    if problem.task.kind == "node":
        return torch.from_numpy(problem.split.unseen)
    border = problem.task.graph_ptr
    return torch.cat([torch.arange(border[g], border[g + 1]) for g in problem.split.test.tolist()])


@pytest.mark.parametrize("setting", ["ind", "graph"])
def test_all_that_is_out_of_sight_changes(setting: str) -> None:
    problem = small_problem(setting)
    changed = with_other_unseen(problem)
    hidden = hidden_nodes(problem)
    assert (changed.task.features[hidden] != problem.task.features[hidden]).any(dim=1).all()
    items = torch.from_numpy(problem.split.unseen if setting == "ind" else problem.split.test)
    assert (changed.task.labels[items] != problem.task.labels[items]).all()
    degree = [task.graph.degree[hidden].tolist() for task in (problem.task, changed.task)]
    assert degree[0] != degree[1]


@pytest.mark.parametrize("setting", ["ind", "graph"])
def test_nothing_in_sight_changes(setting: str) -> None:
    problem = small_problem(setting)
    before, after = make_evaluation_graphs(problem), make_evaluation_graphs(with_other_unseen(problem))
    scenes = {"observed", before.val_graph}
    for name in scenes:
        one, two = before.graphs[name], after.graphs[name]
        assert torch.equal(one.graph.indptr, two.graph.indptr)
        assert torch.equal(one.graph.index, two.graph.index)
        assert torch.equal(one.features, two.features)
    for part in ("train", "val"):
        ids = getattr(problem.split, part)
        assert torch.equal(problem.task.labels[ids], with_other_unseen(problem).task.labels[ids])


@pytest.mark.parametrize("setting", ["tran", "graph", "multilabel"])
def test_every_chosen_label_changes_and_no_other(setting: str) -> None:
    problem = small_problem(setting)
    chosen = problem.split.test
    changed = (relabelled(problem, chosen).task.labels != problem.task.labels).reshape(problem.task.num_items, -1)
    assert changed.all(dim=1).nonzero().flatten().tolist() == sorted(chosen.tolist())
    assert not np.delete(changed.numpy(), chosen, axis=0).any()


def test_renumbering_moves_everything_along() -> None:
    problem = small_problem("ind")
    order = np.random.default_rng(3).permutation(problem.task.num_nodes)
    moved = renumbered(problem, order)
    assert torch.equal(moved.task.features, problem.task.features[order])
    assert torch.equal(moved.task.labels, problem.task.labels[order])
    edges = {(int(a), int(b)) for a, b in zip(problem.task.graph.index, problem.task.graph.row, strict=True)}
    back = {(int(order[a]), int(order[b])) for a, b in zip(moved.task.graph.index, moved.task.graph.row, strict=True)}
    assert edges == back
    for part in ("train", "val", "test", "unseen"):
        assert order[getattr(moved.split, part)].tolist() == getattr(problem.split, part).tolist()
