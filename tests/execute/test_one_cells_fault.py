"""A data set or a split that cannot be prepared costs its own cells; one's own split takes every seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.toy_plugin import DATASET

from gkdbench.cli import main
from gkdbench.data.datasets import DATASETS
from gkdbench.data.splits import first_split
from gkdbench.data.task import Task
from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite, run_suite
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.records.store import load_record
from gkdbench.registry import Entry

PART = {"train": np.arange(30), "val": np.arange(30, 60), "test": np.arange(60, 90)}


def ring(splits: list[dict[str, np.ndarray]]) -> Task:
    """90 nodes of 3 classes, 30 of each."""
    src = np.arange(90)
    edges = np.stack([src, (src + 3) % 90])
    return Task.from_arrays("ring", np.concatenate([edges, edges[::-1]], 1), np.eye(3)[src % 3], src % 3, splits=splits)


def one_split() -> Task:
    return ring([PART])


def four_splits() -> Task:
    return ring([PART] * 4)


@pytest.fixture(autouse=True)
def rings() -> Iterator[None]:
    DATASETS.add(Entry("ring", f"{__name__}:one_split", "test"))
    DATASETS.add(Entry("rings", f"{__name__}:four_splits", "test"))
    yield
    for name in ("ring", "rings"):
        assert DATASETS._entries is not None
        del DATASETS._entries[name]
        DATASETS._loaded.pop(name, None)


def suite(*places: tuple[str, str], seeds: str = "0:2") -> Suite:
    grids = [{"datasets": [name], "splits": [split], "methods": [{"method": "toy"}]} for name, split in places]
    return parse_suite({"suite": {"name": "toys", "seeds": seeds}, "grid": grids})


def test_one_own_split_takes_every_seed_and_several_are_indices(tmp_path: Path) -> None:
    plan = plan_suite(suite(("ring", "own"), seeds="0:10"), out=tmp_path, device="cpu")
    assert [(cell.index, cell.seed) for cell in plan.todo] == [(0, seed) for seed in range(10)]
    plan = plan_suite(suite(("rings", "own"), seeds="0:10"), out=tmp_path, device="cpu")
    assert [(cell.index, cell.seed) for cell in plan.todo] == [(i, s) for i in range(4) for s in range(3)]
    plan = plan_suite(suite(("ring", "own-ind20")), out=tmp_path, device="cpu")
    assert [(cell.index, cell.seed) for cell in plan.todo] == [(0, 0), (1, 1)]


def test_a_set_that_cannot_be_split_leaves_the_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = suite(("ring", "builtin-random"), (DATASET, "builtin-random"))
    summary = run_suite(both, out=tmp_path, jobs=1, device="cpu")
    assert (summary.ok, summary.absent, len(summary.refused)) == (2, [], 1)
    assert "ring on builtin-random: 2 cells left out: class 0: expected more than 20" in summary.refused[0]
    assert "try the split node-80-10-10" in summary.refused[0]


def test_a_command_whose_every_set_is_refused_ends_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="class 0: expected more than 20"):
        plan_suite(suite(("ring", "builtin-random")), device="cpu")
    assert main(["plan", "--method", "mlp", "--dataset", "ring", "--split", "builtin-random"]) == 2
    assert "class 0: expected more than 20" in capsys.readouterr().err


def test_a_split_that_fails_for_one_seed_is_a_row_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gkdbench.execute import prefetch

    prepared = prefetch.prepare_named

    def fails_at_one(dataset: str, split: str, index: int, **more: object) -> object:
        if index == 1:
            raise UserError("a split: expected at least 3 labelled items, got 2")
        return prepared(dataset, split, index, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(prefetch, "prepare_named", fails_at_one)
    summary = run_suite(suite((DATASET, "builtin-random"), seeds="0:3"), out=tmp_path, jobs=1, device="cpu")
    assert (summary.ok, len(summary.failures)) == (2, 1)
    (path,) = summary.records
    rows = {row.index: row for row in load_record(path).rows}
    assert [rows[index].status for index in range(3)] == ["ok", "error", "ok"]
    assert rows[1].phase == "prepare" and "expected at least 3 labelled items" in (rows[1].reason or "")


def test_a_task_of_ones_own_is_run_by_one_call(tmp_path: Path) -> None:
    task = one_split().with_(name="mine")
    summary = run_suite(methods=["toy"], task=task, seeds="0:2", out=tmp_path, jobs=1, device="cpu")
    again = run_suite(methods=["toy"], task=task, seeds="0:2", out=tmp_path, jobs=1, device="cpu")
    assert (summary.ok, again.ok, again.cached) == (2, 0, 2)
    (path,) = summary.records
    record = load_record(path)
    assert (record.dataset, record.split, [row.seed for row in record.rows]) == ("mine", "own", [0, 1])
    assert "mine" not in DATASETS.names()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dataset": "cora"}, "expected a task or the name of a data set, got both"),
        ({"task": "cora"}, "task: expected a Task, got a str"),
        ({"task": ring([PART])}, "dataset 'ring': expected a name that is free, got that of test"),
    ],
)
def test_a_task_that_cannot_be_named_is_refused(more: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"methods": ["toy"], "task": one_split().with_(name="mine"), "device": "cpu"}
    with pytest.raises(UserError, match=message):
        plan_suite(**(arguments | more))  # type: ignore[arg-type]


def test_the_split_of_a_task_is_the_one_it_brought_else_a_random_one() -> None:
    assert first_split(one_split()) == "own"
    assert first_split(one_split().with_(official={})) == "node-80-10-10"
