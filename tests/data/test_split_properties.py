"""Every split family on every built-in set that supports it, and the exact rules of the released loaders."""

import numpy as np
import pytest
import torch

from gkdbench.data import builtin, splitmakers
from gkdbench.data.datasets import load_task
from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.data.splits import SplitTask, prepare, prepare_named, supported_splits
from gkdbench.data.task import Task
from gkdbench.errors import UnknownName, UserError

UNLIKE = ("powerlaw", "ppi-shaped")  # large; one fixed split
PAIRS = [(name, split) for name, info in builtin.BUILTIN.items() if name not in UNLIKE for split in info.splits]


@pytest.fixture(scope="module")
def problems() -> dict[tuple[str, str], SplitTask]:
    return {(name, split): prepare_named(name, split, 1) for name, split in PAIRS}


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_parts_are_disjoint_sorted_out_and_in_range(pair: tuple[str, str], problems: dict) -> None:
    problem = problems[pair]
    split, family = problem.split, SPLIT_FAMILIES[pair[1]]
    ids = np.concatenate([split.train, split.test] if family.audit_only else [split.train, split.val, split.test])
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= 0 and ids.max() < problem.task.num_items
    assert all(part.dtype == np.int64 and len(part) for part in (split.train, split.val, split.test))
    assert np.isin(split.unseen, split.test).all()
    assert (len(split.unseen) > 0) == (family.setting == "ind")
    if family.audit_only:
        assert (split.val == split.test).all()


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_an_index_is_one_split_and_another_index_another(pair: tuple[str, str], problems: dict) -> None:
    again, other = prepare_named(*pair, 1), prepare_named(*pair, 2)
    assert again.split.hash == problems[pair].split.hash and again.hash == problems[pair].hash
    assert other.split.hash != again.split.hash and other.hash != again.hash


@pytest.mark.parametrize("pair", [p for p in PAIRS if p[1].startswith("builtin-random")], ids="/".join)
def test_twenty_and_thirty_per_class_and_a_fifth_unseen(pair: tuple[str, str], problems: dict) -> None:
    problem = problems[pair]
    labels, split = problem.task.labels.numpy(), problem.split
    classes = problem.task.num_classes
    assert np.bincount(labels[split.train]).tolist() == [20] * classes
    assert np.bincount(labels[split.val]).tolist() == [30] * classes
    assert len(split.test) == problem.task.num_items - 50 * classes
    if pair[1].endswith("ind20"):
        assert len(split.unseen) == len(split.test) // 5
        assert (split.unseen == split.test[: len(split.unseen)]).all()


def test_ind20_shares_its_parts_with_the_transductive_family() -> None:
    tran, ind = (prepare_named("csbm", split, 3).split for split in ("builtin-random", "builtin-random-ind20"))
    assert (tran.train == ind.train).all() and (tran.val == ind.val).all()
    assert (np.sort(ind.test) == tran.test).all()


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_cpf_rule_is_the_released_loaders(seed: int) -> None:
    """Against the rule written out with lists, one item at a time, as the released loaders do it."""
    labels = np.random.default_rng(5).integers(0, 3, 400)
    random_state = np.random.RandomState(seed)
    taken: list[int] = []

    def draw(count: int) -> list[int]:
        chosen: list[int] = []
        for label in range(3):
            candidates = [item for item in range(400) if labels[item] == label and item not in taken]
            chosen += random_state.choice(candidates, count, replace=False).tolist()
        taken.extend(chosen)
        return chosen

    train, val = draw(20), draw(30)
    test = sorted(set(range(400)) - set(taken))
    torch.manual_seed(seed)
    order = torch.randperm(len(test)).tolist()
    unseen = [test[position] for position in order[: int(len(test) * 0.2)]]

    parts = splitmakers.unseen_fifth(splitmakers.cpf(labels, seed), seed)
    assert parts.train.tolist() == train
    assert parts.val.tolist() == val
    assert sorted(parts.test.tolist()) == test
    assert parts.test[: parts.num_unseen].tolist() == unseen


def test_folds_partition_the_items_and_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [60, 100, 140])
    folds = [splitmakers.fold(labels, k) for k in range(10)]
    assert sorted(np.concatenate([parts.test for parts in folds]).tolist()) == list(range(300))
    for parts in folds:
        assert np.bincount(labels[parts.test]).tolist() == [6, 10, 14]
        assert (len(parts.train), len(parts.val)) == (243, 27)
        assert np.abs(np.bincount(labels[parts.val]) - np.array([5.4, 9, 12.6])).max() < 1


def test_random_80_10_10_leaves_unlabelled_items_out() -> None:
    labels = np.repeat([0, 1, -1], [50, 30, 20])
    parts = splitmakers.random_80_10_10(labels, 0)
    assert [len(part) for part in parts[:3]] == [64, 8, 8]
    assert (labels[np.concatenate(parts[:3])] >= 0).all()


def two_components() -> Task:
    """Nodes 0..99 in one ring and 100..259 in another; class = parity; the larger component is the second."""
    first, second = np.arange(100), np.arange(100, 260)
    ring = np.concatenate([np.stack([part, np.roll(part, 1)]) for part in (first, second)], axis=1)
    labels = np.arange(260) % 2
    return Task.from_arrays("rings", np.concatenate([ring, ring[::-1]], axis=1), labels[:, None] + 1.0, labels)


def test_largest_component_keeps_ids_features_and_labels_together() -> None:
    raw = two_components()
    problem = prepare(raw, "cpf-lcc-20-30", 0)
    ids = problem.split.original_ids
    assert (ids == np.arange(100, 260)).all()
    assert torch.equal(problem.task.labels, raw.labels[torch.from_numpy(ids)])
    assert torch.equal(problem.task.features, raw.features[torch.from_numpy(ids)])
    assert problem.task.graph.degree.tolist() == [3] * 160  # two neighbours and a loop
    assert problem.preprocessing["component"] == "largest"


def test_seed0_is_split_0_of_its_family() -> None:
    one, other = (
        prepare(two_components(), "cpf-lcc-20-30/seed0").split,
        prepare(two_components(), "cpf-lcc-20-30").split,
    )
    assert (one.train == other.train).all() and (one.val == other.val).all() and (one.test == other.test).all()
    assert SPLIT_FAMILIES["cpf-lcc-20-30/seed0"].replication_only
    with pytest.raises(UserError, match="expected an index of 0 to 0, got 1"):
        prepare(two_components(), "cpf-lcc-20-30/seed0", 1)


def test_self_loops_are_added_once() -> None:
    edges = np.array([[0, 0, 1, 2], [0, 1, 0, 2]])
    task = Task.from_arrays("loops", edges, np.ones((60, 1)), np.arange(60) % 2, splits=None)
    graph = prepare(task, "node-80-10-10", 0).task.graph
    assert graph.num_edges == 62
    assert int((graph.index == graph.row).sum()) == 60


def test_directed_edges_gain_their_reverse() -> None:
    task = Task.from_arrays("arrow", np.array([[0], [1]]), np.ones((60, 1)), np.arange(60) % 2)
    graph = prepare(task, "node-80-10-10", 0).task.graph
    pairs = set(zip(graph.index.tolist(), graph.row.tolist(), strict=True))
    assert {(0, 1), (1, 0)} <= pairs and graph.num_edges == 62 and graph.symmetric is True


def test_raw_task_is_not_changed_by_preparing() -> None:
    task = load_task("csbm")
    before = task.content_hash
    prepare(task, "builtin-random-ind20", 0)
    assert load_task("csbm").content_hash == before
    assert task.graph.num_edges == load_task("csbm").graph.num_edges


def test_unsupported_pairs_unknown_ids_and_indices_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"csbm has no split 'tu-10fold': expected one of builtin-random, builtin-random-ind20"
    ):
        prepare_named("csbm", "tu-10fold")
    with pytest.raises(UnknownName, match="did you mean 'builtin-random'"):
        prepare_named("csbm", "builtin-randm")
    with pytest.raises(UserError, match="expected an index of 0 to 9, got 10"):
        prepare_named("digits-grid", "tu-10fold", 10)
    with pytest.raises(UserError, match="expected an index of 0 or more, got -1"):
        prepare_named("csbm", "builtin-random", -1)
    with pytest.raises(UserError, match="csbm-multilabel has no split 'builtin-random'"):
        prepare(load_task("csbm-multilabel"), "builtin-random")


def test_classes_that_are_too_small_are_named() -> None:
    with pytest.raises(UserError, match=r"class 1: expected more than .* items, got 40"):
        splitmakers.cpf(np.repeat([0, 1], [100, 40]), 0)
    with pytest.raises(UserError, match="expected at least ten items in every class"):
        splitmakers.fold(np.repeat([0, 1], [100, 9]), 0)


def test_supported_splits_of_built_in_sets_fit_the_tasks_themselves() -> None:
    for name in builtin.BUILTIN:
        for split in supported_splits(name):
            assert load_task(name).kind in SPLIT_FAMILIES[split].kinds


def test_prod_is_reported_exactly_where_both_parts_exist() -> None:
    for family in SPLIT_FAMILIES.values():
        assert ("prod" in family.columns) == ({"tran", "ind"} <= set(family.columns))
