"""A planted method that searches everything design decision 1 covers finds no test label, and would have found one."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.label_search import found

from gkdbench.data.splits import prepare_named
from gkdbench.protocol.view_io import write_bundle

HIDING_PLACES = (
    "closure", "slice", "one hot", "list", "by id", "bytes", "renamed", "attribute", "saved array", "json",
)  # fmt: skip
NOWHERE = "nowhere"
"""Handed to the planted method and dropped again: found only if a decoy is found for another reason than its place."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the planted method brought home from a worker of its own, and what only this process knows."""
    folder = tmp_path_factory.mktemp("search")
    problem = prepare_named("csbm:n=600,classes=3,d=8", "builtin-random-ind20")
    evaluation_graphs = write_bundle(problem, folder / "view")
    (folder / "scratch").mkdir()
    (folder / "cwd").mkdir()
    count = problem.task.num_nodes
    decoys = {
        place: np.random.default_rng(i).integers(0, 3, count) for i, place in enumerate((*HIDING_PLACES, NOWHERE))
    }
    np.savez(folder / "decoys.npz", **decoys)
    environment = {name: value for name, value in os.environ.items() if name != "GKDBENCH_DATA"}
    here = Path(__file__).parent
    run = subprocess.run(
        [
            sys.executable,
            here / "snoop.py",
            folder / "view",
            folder / "scratch",
            folder / "decoys.npz",
            folder / "report.json",
        ],
        env=environment | {"GKDBENCH_WORKER": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here.parent)},
        cwd=folder / "cwd",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with np.load(folder / "report.npz") as stored:
        collected = {name: stored[name] for name in stored.files}
    report = json.loads((folder / "report.json").read_text())
    return {
        "problem": problem,
        "evaluation_graphs": evaluation_graphs,
        "collected": collected,
        "report": report,
        "decoys": decoys,
    }


def test_it_finds_no_test_label(searched: Mapping[str, Any]) -> None:
    problem, evaluation_graphs = searched["problem"], searched["evaluation_graphs"]
    secret = np.full(problem.task.num_nodes, -1)
    secret[problem.split.test] = problem.task.labels.numpy()[problem.split.test]
    orders = {"the task's order": np.arange(problem.task.num_nodes), "test": problem.split.test}
    orders["sorted test"] = np.sort(problem.split.test)
    orders |= {f"scene {name}": inputs.items.ids.numpy() for name, inputs in evaluation_graphs.graphs.items()}
    orders |= {
        f"column {scored_set.column}": scored_set.items.ids.numpy() for scored_set in evaluation_graphs.scored_sets
    }
    orders |= {
        f"column {scored_set.column}, renumbered": scored_set.items.ids.numpy()[
            evaluation_graphs.place[scored_set.column]
        ]
        for scored_set in evaluation_graphs.scored_sets
    }
    assert found(searched["collected"], orders, secret) == []


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_it_would_have_found_them(searched: Mapping[str, Any], place: str) -> None:
    """The same search finds a label vector in each place where a careless harness might leave one."""
    labels = searched["decoys"][place]
    assert found(searched["collected"], {"all": np.arange(len(labels))}, labels) != []


def test_it_finds_the_training_labels_that_it_was_given(searched: Mapping[str, Any]) -> None:
    split, labels = searched["problem"].split, searched["problem"].task.labels.numpy()
    place = searched["evaluation_graphs"].place["train"]
    assert found(searched["collected"], {"train": split.train[place]}, labels) != []


def test_it_does_not_cry_wolf(searched: Mapping[str, Any]) -> None:
    """Label vectors that were never in that process, or were there and are gone, are not found."""
    absent = [np.random.default_rng(seed).integers(0, 3, searched["problem"].task.num_nodes) for seed in (100, 101)]
    for labels in (*absent, searched["decoys"][NOWHERE]):
        assert found(searched["collected"], {"all": np.arange(len(labels)), "some": np.arange(90)}, labels) == []


def test_the_loaders_refuse_and_the_data_folder_is_unknown(searched: Mapping[str, Any]) -> None:
    assert searched["report"]["given"] == []
    assert searched["report"]["data"] is None
    assert searched["report"]["decoys"] == [*HIDING_PLACES, NOWHERE]
