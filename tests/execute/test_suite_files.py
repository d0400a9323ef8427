"""Suites at the boundary: what a TOML file may say, and what it is told when it says something else."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from gkdbench.data.families import split_family
from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite
from gkdbench.execute.grid import index_seed_pairs
from gkdbench.execute.smoke import EPOCHS, smoke_suite
from gkdbench.execute.suite import Suite, load_suite, parse_suite, suite_files
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve

TEXT = """
[suite]
name = "mine"
version = 2
seeds = [3, 5]
time_limit_s = 60.0

[[grid]]
datasets = ["csbm"]
splits = ["builtin-random"]
[[grid.methods]]
method = "mlp"
lr = 0.05
[grid.methods.per_dataset.csbm]
epochs = 7
"""


def test_a_file_becomes_a_typed_suite(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    suite = load_suite(path)
    assert (suite.full_name, suite.seeds, suite.threads, suite.audit_every) == ("mine@2", (3, 5), 1, 1)
    assert suite.grids[0].methods[0].overrides == {"lr": 0.05}
    assert suite.grids[0].methods[0].per_dataset == {"csbm": {"epochs": 7}}
    assert suite.command_name == "mine.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("time_limit_s", "time_limit", r"\[suite\]: unknown key 'time_limit'; did you mean 'time_limit_s'"),
        ("splits", "split", "grid 1: unknown key 'split'; did you mean 'splits'"),
        ("[suite]", "[suit]", "unknown table 'suit'; did you mean 'suite'"),
        ("60.0", '"60"', "time_limit_s: expected a valid number, got '60'"),
        ("60.0", "-1.0", "time_limit_s: expected a value greater than 0, got -1.0"),
        ('["csbm"]', '"csbm"', "datasets: expected .*, got 'csbm'"),
        ("[3, 5]", '"0-10"', "seeds: expected a range"),
        ("[3, 5]", "[3, 3]", "listed twice"),
        ("[3, 5]", "[-1]", "seeds.0: expected .*, got -1"),
        ("version = 2", "version = 0", "version: expected .*, got 0"),
        ("version = 2", "threads = 0", "threads: expected .*, got 0"),
        ('datasets = ["csbm"]', "datasets = []", "datasets: expected .*, got "),
        ("[[grid]]", "[[grid", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_suite(path)


def test_an_unknown_suite_gets_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown suite 'node-smal@1'; did you mean 'node-small@1'"):
        load_suite("node-smal@1")
    with pytest.raises(UserError, match=r"absent\.toml cannot be read"):
        load_suite(tmp_path / "absent.toml")


def test_a_range_leaves_its_end_out() -> None:
    entry = {"datasets": ["csbm"], "splits": ["builtin-random"], "methods": [{"method": "mlp"}]}
    assert parse_suite({"suite": {"seeds": "0:3"}, "grid": [entry]}).seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("split", "pairs"),
    [
        ("cpf-lcc-20-30", [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ("planetoid-public", [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ("tu-10fold", [(fold, seed) for fold in range(10) for seed in range(3)]),
    ],
)
def test_seeds_pair_with_indices_as_the_family_says(split: str, pairs: list[tuple[int, int]]) -> None:
    assert index_seed_pairs(split_family(split), (0, 1, 2, 3)) == pairs


def test_published_suites_are_named_after_their_files_and_their_methods_resolve() -> None:
    assert "node-small@1" in suite_files()
    for name in suite_files():
        suite = load_suite(name)
        assert suite.full_name == suite.command_name == name
        for grid in suite.grids:
            for entry in grid.methods:
                for dataset in grid.datasets:
                    method = resolve(entry.method, entry.overrides, dataset=dataset)
                    assert method.name == entry.method


def test_labels_tell_the_rows_of_mutual_learning_apart() -> None:
    """Within a place, but for what stands beside a label on the board: variant, teacher, and tier of tuning."""
    rows: Counter[tuple[str, ...]] = Counter()
    for grid in load_suite("mutual@1").grids:
        for entry, dataset, split in itertools.product(grid.methods, grid.datasets, grid.splits):
            method = resolve(entry.method, entry.overrides, dataset=dataset, split=split)
            taught = repr(entry.overrides.get("teacher_settings"))
            rows[dataset, split, method.label, method.variant, taught, str(bool(entry.search))] += 1
    assert [row for row, count in rows.items() if count > 1] == []


def cells_of(suite: Suite, kind: str) -> int:
    return sum(len(g.methods) * len(g.splits) for g in suite.grids if g.datasets == [kind])


def test_smoke_holds_every_method_of_each_kind_within_the_budget() -> None:
    suite = smoke_suite()
    for dataset, kind in (("digits-knn", "node"), ("digits-grid", "graph")):
        (grid,) = [grid for grid in suite.grids if grid.datasets == [dataset]]
        fitting = [name for name in METHODS.names() if kind in METHODS.get(name).kinds]
        assert [entry.method for entry in grid.methods] == fitting
        epochs = [entry.overrides["epochs"] for entry in grid.methods if "epochs" in entry.overrides]
        assert sum(epochs) * len(grid.splits) <= max(EPOCHS[kind], 2 * cells_of(suite, dataset))
        assert suite.requirement_overrides[dataset].keys() == set(fitting)


def test_a_method_for_one_class_an_item_is_refused_where_items_have_several_labels() -> None:
    grid = {"datasets": ["csbm-multilabel"], "splits": ["node-80-10-10"], "methods": [{"method": "krd"}]}
    with pytest.raises(UserError, match="method 'krd': expected a task of one class an item, got csbm-multilabel"):
        plan_suite(parse_suite({"suite": {"name": "x", "seeds": "0:1"}, "grid": [grid]}), device="cpu")
