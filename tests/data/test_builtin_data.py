"""The sets that need no files: their sizes, their determinism, and that graph and features both carry the label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gkdbench.data import builtin, digits
from gkdbench.data.datasets import available, dataset_info, load_task
from gkdbench.data.splits import prepare
from gkdbench.data.synthetic import csbm, csbm_multilabel, power_law, ppi_shaped
from gkdbench.data.task import Task
from gkdbench.errors import UserError


@pytest.mark.parametrize("name", list(builtin.BUILTIN))
def test_sizes_and_determinism(name: str) -> None:
    task, info = load_task(name), dataset_info(name)
    sizes = {
        "nodes": task.num_nodes,
        "edges": task.graph.num_edges,
        "features": task.num_features,
        "classes": task.num_classes,
        "graphs": task.num_items if task.graph_ptr is None else len(task.graph_ptr) - 1,
    }
    assert {key: sizes[key] for key in info.stats} == dict(info.stats)
    assert (task.kind, task.metric, task.multi_label) == (info.kind, info.metric, info.multi_label)
    assert task.name == name and available(name)
    assert load_task(name).content_hash == task.content_hash
    assert task.graph.symmetric is True and bool((task.graph.index != task.graph.row).all())


def homophily(task: Task) -> float:
    return float((task.labels[task.graph.index] == task.labels[task.graph.row]).double().mean())


def test_edges_follow_the_classes() -> None:
    assert homophily(load_task("digits-knn")) > 0.9
    assert 0.8 < homophily(csbm(within=0.8)) < 0.9  # 0.8 and a quarter of the free 0.2
    assert homophily(csbm(within=0.0)) < 0.35


def test_knn_graph_joins_the_nearest() -> None:
    task = load_task("digits-knn")
    assert isinstance(task.features, torch.Tensor)
    distance = torch.cdist(task.features[:1].double(), task.features.double())[0]
    nearest = set(distance.argsort()[1:6].tolist())
    assert nearest <= set(task.graph.index[: int(task.graph.indptr[1])].tolist())


def test_grid_graphs_are_grids() -> None:
    task = load_task("digits-grid")
    assert task.graph_ptr is not None and task.graph_ptr[:3].tolist() == [0, 64, 128]
    assert task.graph.degree.reshape(-1, 8, 8)[5].tolist() == (
        [[2, 3, 3, 3, 3, 3, 3, 2]] + [[3, 4, 4, 4, 4, 4, 4, 3]] * 6 + [[2, 3, 3, 3, 3, 3, 3, 2]]
    )
    owner = torch.searchsorted(task.graph_ptr, task.graph.index, right=True)
    assert torch.equal(owner, torch.searchsorted(task.graph_ptr, task.graph.row, right=True))


def test_seeds_make_other_graphs() -> None:
    assert csbm(seed=1).content_hash != csbm(seed=2).content_hash
    assert power_law(500, seed=1).content_hash != power_law(500, seed=2).content_hash


def test_power_law_has_hubs_and_the_asked_mean() -> None:
    degree = power_law(20_000, degree=10.0).graph.degree.numpy()
    assert 8 < degree.mean() <= 10
    assert degree.max() > 20 * degree.mean()
    assert np.median(degree) < degree.mean()


def test_ppi_shaped_is_several_graphs_of_many_labels() -> None:
    task = load_task("ppi-shaped:nodes=60,degree=20")
    assert task.graph_ptr is not None and task.graph_ptr.tolist() == list(range(0, 24 * 60 + 1, 60))
    assert torch.equal(task.graph.index // 60, task.graph.row // 60), "no edge between graphs"
    assert task.labels.shape == (1440, 121) and 0.2 < float(task.labels.mean()) < 0.5
    assert 0.0 < float(task.labels.mean(0).min()) <= float(task.labels.mean(0).max()) < 1.0
    split = prepare(task, "ppi").split
    assert [len(part) for part in (split.train, split.val, split.test)] == [20 * 60, 2 * 60, 2 * 60]
    assert split.unseen.tolist() == split.test.tolist() == list(range(22 * 60, 24 * 60))


def test_sizes_are_given_in_the_name() -> None:
    task = load_task("powerlaw:n=300,d=5,classes=3,within=0.5")
    assert (task.num_nodes, task.num_features, task.num_classes) == (300, 5, 3)
    assert task.name == "powerlaw:n=300,d=5,classes=3,within=0.5"
    assert dataset_info(task.name).name == "powerlaw"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("powerlaw:nodes=5", "no argument 'nodes'"),
        ("powerlaw:n=many", "n: expected a whole number, got 'many'"),
        ("powerlaw:n=0", "n: expected a positive number, got 0"),
        ("powerlaw:exponent=2", "exponent: expected a number above 2"),
        ("csbm:within=2", "within: expected a share"),
        ("ppi-shaped:graphs=4", "graphs: expected at least 5"),
        ("digits-knn:n=5", "no argument 'n'"),
    ],
)
def test_bad_sizes_are_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(name)


@pytest.mark.parametrize("make", [csbm, csbm_multilabel, ppi_shaped, power_law])
@pytest.mark.parametrize(
    "wrong",
    [
        {"degree": -3}, {"degree": float("nan")}, {"degree": float("inf")}, {"seed": -1}, {"within": 1.5}, {"d": 0},
        {"signal": float("inf")}, {"classes": 10**12}, {"degree": 1e12}, {"d": 10**12}, {"n": 10**12},
    ],
    ids=str,
)  # fmt: skip
def test_generators_check_their_ranges_before_they_take_memory(make: Callable[..., Task], wrong: dict) -> None:
    if make is ppi_shaped and "n" in wrong:
        wrong = {"nodes": wrong["n"]}
    (name,) = wrong
    with pytest.raises(UserError, match="expected nodes times" if 10**12 in wrong.values() else f"{name}: expected"):
        make(**wrong)


def test_digits_are_those_that_scikit_learn_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = digits._digits()
    monkeypatch.setattr(digits, "_TABLE", Path("absent.csv.gz"))  # then scikit-learn's own function reads them
    for ours, theirs in zip(direct, digits._digits(), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
