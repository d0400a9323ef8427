"""Raw files with seeded changes: read as a consistent task, or refused in words within bounds of time and memory."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.fuzz import mutated_bytes, mutated_gzip, mutated_json, mutated_npz, outcome_of

from gkdbench.data.datasets import load_task
from gkdbench.data.task import Task

Register = Callable[..., Path]
OFTEN = 15
"""Changes of each format in the normal tests; `FULL` in the long ones."""
FULL = 150


def tu_files() -> dict[str, bytes]:
    texts = {
        "_A.txt": "1, 2\n2, 1\n3, 4\n4, 3\n5, 6\n6, 5\n7, 8\n8, 7\n",
        "_graph_indicator.txt": "1\n1\n2\n2\n3\n3\n4\n4\n",
        "_graph_labels.txt": "1\n-1\n1\n-1\n",
        "_node_labels.txt": "0\n1\n0\n2\n1\n1\n0\n0\n",
        "_edge_labels.txt": "0\n0\n1\n1\n0\n0\n1\n1\n",
    }
    return {f"TU/T/raw/T{end}": text.encode() for end, text in texts.items()}


def csv_gz(rows: Sequence[Sequence[float]]) -> bytes:
    return gzip.compress("".join(",".join(map(str, row)) + "\n" for row in rows).encode(), mtime=0)


def ogb_node_files() -> dict[str, bytes]:
    tables: dict[str, Any] = {
        "raw/edge": [(0, 1), (1, 2), (3, 0)],
        "raw/node-feat": [(0.5, -1), (1, 2), (3, 4), (5, 6.25)],
        "raw/node-label": [[0], [2], [1], [0]],
        "raw/num-node-list": [[4]],
        "raw/num-edge-list": [[3]],
        "split/time/train": [[0], [1]],
        "split/time/valid": [[3]],
        "split/time/test": [[2]],
    }
    return {f"OGB/n/{name}.csv.gz": csv_gz(rows) for name, rows in tables.items()}


def ogb_graph_files() -> dict[str, bytes]:
    tables: dict[str, Any] = {
        "raw/edge": [(0, 1), (1, 0), (0, 1), (1, 0)],
        "raw/edge-feat": [(0, 1), (0, 1), (2, 0), (1, 1)],
        "raw/node-feat": [(5, 0), (6, 1), (0, 0), (1, 1), (2, 2), (3, 1)],
        "raw/graph-label": [[0], [1], [0]],
        "raw/num-node-list": [[2], [2], [2]],
        "raw/num-edge-list": [[2], [1], [1]],
        "split/s/train": [[0]],
        "split/s/valid": [[1]],
        "split/s/test": [[2]],
    }
    return {f"OGB/o/{name}.csv.gz": csv_gz(rows) for name, rows in tables.items()}


def webkb_files() -> dict[str, bytes]:
    nodes = "node_id\tfeature\tlabel\n" + "".join(f"{i}\t{i % 2},1,0\t{i % 2}\n" for i in range(6))
    edges = "node_id\tnode_id\n0\t1\n1\t2\n3\t4\n4\t5\n"
    return {"W/out1_node_feature_label.txt": nodes.encode(), "W/out1_graph_edges.txt": edges.encode()}


def heterophilous_files() -> dict[str, bytes]:
    masks = np.stack([np.roll([True, False, False, False], k) for k in range(10)])
    packed = io.BytesIO()
    np.savez(
        packed,
        node_features=np.ones((4, 2), np.float32),
        node_labels=np.array([0, 1, 1, 0]),
        edges=np.array([[0, 1], [2, 1], [3, 0]]),
        train_masks=masks,
        val_masks=np.roll(masks, 1, axis=1),
        test_masks=np.roll(masks, 2, axis=1),
    )
    return {"H/rough.npz": packed.getvalue()}


def wikics_files() -> dict[str, bytes]:
    masks = [[[i == k for i in range(6)] for _ in range(20)] for k in (0, 1, 2)]
    facts = {
        "features": [[0.5, float(i)] for i in range(6)],
        "labels": [0, 1, 0, 1, 0, 1],
        "links": [[1], [0, 2], [], [4], [3], [2]],
        "train_masks": masks[0],
        "val_masks": masks[1],
        "stopping_masks": masks[2],
        "test_mask": [i > 2 for i in range(6)],
    }
    return {"wiki-cs/raw/data.json": json.dumps(facts).encode()}


FORMATS: dict[str, tuple[Callable[[], dict[str, bytes]], dict[str, Any]]] = {
    "tu": (tu_files, {"kind": "graph"}),
    "ogb_nodes": (ogb_node_files, {"directed": True}),
    "ogb_graphs": (ogb_graph_files, {"kind": "graph", "multi_label": True, "metric": "rocauc"}),
    "wikics": (wikics_files, {}),
    "webkb": (webkb_files, {"directed": True}),
    "heterophilous": (heterophilous_files, {}),
}


def changed(name: str, data: bytes, rng: random.Random) -> bytes:
    if name.endswith(".gz"):
        return mutated_gzip(data, rng)
    if name.endswith(".json"):
        return mutated_json(json.loads(data), rng)
    return mutated_npz(data, rng) if name.endswith(".npz") else mutated_bytes(data, rng)


def consistent(task: Task) -> bool:
    """What every method relies on."""
    items = task.num_items
    index = task.graph.index
    assert int(task.labels.shape[0]) == items
    assert index.numel() == 0 or 0 <= int(index.min()) <= int(index.max()) < task.num_nodes
    if task.labels.ndim == 1:
        assert int(task.labels.min()) >= 0 and int(task.labels.max()) < task.num_classes
    features = task.features if isinstance(task.features, torch.Tensor) else task.features.dense()
    assert bool(torch.isfinite(features).all())
    return True


def check(register: Register, reader: str, files: dict[str, bytes], facts: dict[str, Any], seed: int) -> str | None:
    """Change one file; the refusal, or None if the set was accepted."""
    rng = random.Random(f"{reader} {seed}")
    name = rng.choice(sorted(files))
    content = files | {name: changed(name, files[name], rng)}
    folder = register("fuzzed", content, reader=reader, **facts)
    found = outcome_of(lambda: load_task("fuzzed", data=folder), folder)
    if found.refusal is None:
        assert consistent(found.value)
    return found.refusal


def run(register: Register, reader: str, files: dict[str, bytes], facts: dict[str, Any], seeds: range) -> None:
    untouched = register("fuzzed", files, reader=reader, **facts)
    assert consistent(load_task("fuzzed", data=untouched)), "else every change is refused"
    said = {seed: check(register, reader, files, facts, seed) for seed in seeds}
    assert None in said.values() and any(said.values()), "some changes are harmless, and some are not"


@pytest.mark.parametrize("reader", FORMATS)
def test_changed_files_are_read_or_refused(register: Register, reader: str) -> None:
    files, facts = FORMATS[reader]
    run(register, reader, files(), facts, range(OFTEN))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("reader", FORMATS)
def test_many_changed_files_are_read_or_refused(register: Register, reader: str) -> None:
    files, facts = FORMATS[reader]
    run(register, reader, files(), facts, range(OFTEN, OFTEN + FULL))


def test_changed_arrays_are_read_or_refused(register: Register, tiny_npz: bytes) -> None:
    run(register, "npz_graph", {"CPF/t.npz": tiny_npz}, {}, range(OFTEN))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_many_changed_arrays_are_read_or_refused(register: Register, tiny_npz: bytes) -> None:
    run(register, "npz_graph", {"CPF/t.npz": tiny_npz}, {}, range(OFTEN, OFTEN + FULL))
