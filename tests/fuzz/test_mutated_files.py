"""Seeded mutations of records, side-cars, suites and raw files: each is read as what it says, or refused in words.

200 of them in every run of the tests, 2,000 with ``-m full``. A failure names the seed: give it to `one_mutation`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from support import fuzz_limits
from support.fuzz_limits import bounded
from support.fuzz_mutations import mutated_bytes, mutated_file, mutated_npz, mutated_text
from support.one_run import arrays, record, row

from gkdbench.data import catalogue
from gkdbench.data.datasets import load_task
from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.task import Task
from gkdbench.errors import UserError
from gkdbench.execute.suite import Suite, load_suite
from gkdbench.records.schema import Record
from gkdbench.records.sidecar import npz_bytes, read_npz
from gkdbench.records.store import load_record, record_bytes

FEW, MANY = 50, 500
"""Mutations of each of the four kinds."""

SUITE = """
[suite]
name = "mine"
version = 1
summary = "two methods"
seeds = "0:3"

[[grid]]
datasets = ["csbm", "digits-knn"]
splits = ["builtin-random"]

[[grid.methods]]
method = "mlp"
lr = 0.01

[[grid.methods]]
method = "glnn"
datasets = ["csbm"]
"""


def _npy(array: object) -> bytes:
    target = io.BytesIO()
    np.save(target, np.asarray(array))
    return target.getvalue()


def _csv(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def _npz(**parts: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez(target, **parts)
    return target.getvalue()


def _planetoid() -> dict[str, bytes]:
    seen = sp.csr_matrix(np.arange(8, dtype=np.float32).reshape(4, 2))
    unseen = sp.csr_matrix(np.array([[60, 61], [40, 41]], np.float32))
    classes = np.eye(2, dtype=np.int32)
    parts = {
        "x": seen[:2], "y": classes[[0, 1]], "allx": seen, "ally": classes[[0, 1, 0, 1]], "tx": unseen,
        "ty": classes[[1, 0]], "graph": defaultdict(list, {0: [1, 1, 0], 1: [0], 4: [5], 5: [4], 2: [], 3: []}),
    }  # fmt: skip
    files = {f"ind.tiny.{end}": pickle.dumps(part, protocol=4) for end, part in parts.items()}
    return files | {"ind.tiny.test.index": b"5\n4\n"}


RAW: dict[str, tuple[dict[str, bytes], dict[str, Any]]] = {
    "tu": (
        {
            "T_A.txt": b"1, 2\n2, 1\n3, 4\n4, 3\n5, 6\n6, 5\n",
            "T_graph_indicator.txt": b"1\n1\n2\n2\n3\n3\n",
            "T_graph_labels.txt": b"1\n-1\n1\n",
            "T_node_labels.txt": b"0\n1\n0\n2\n1\n1\n",
            "T_edge_labels.txt": b"0\n0\n1\n1\n0\n0\n",
        },
        {"kind": "graph"},
    ),
    "npz_graph": (
        {
            "six.npz": _npz(
                adj_data=np.ones(7, np.float32),
                adj_indices=np.array([1, 0, 2, 3, 4, 4, 5]),
                adj_indptr=np.array([0, 1, 3, 4, 5, 7, 7]),
                adj_shape=np.array([6, 6]),
                attr_data=np.array([1, 2, 3], np.float32),
                attr_indices=np.array([0, 2, 1]),
                attr_indptr=np.array([0, 1, 1, 2, 3, 3, 3]),
                attr_shape=np.array([6, 3]),
                labels=np.array([0, 1, 0, 1, 0, 1]),
            )
        },
        {},
    ),
    "planetoid": (_planetoid(), {}),
    "ogb_nodes": (
        {
            "raw/edge.csv.gz": _csv("0,1\n1,2\n3,0\n"),
            "raw/node-feat.csv.gz": _csv("0.5,-1\n1,2\n3,4\n5,6.25\n"),
            "raw/node-label.csv.gz": _csv("0\n2\n1\n0\n"),
            "raw/num-node-list.csv.gz": _csv("4\n"),
            "raw/num-edge-list.csv.gz": _csv("3\n"),
            "split/time/train.csv.gz": _csv("0\n1\n"),
            "split/time/valid.csv.gz": _csv("3\n"),
            "split/time/test.csv.gz": _csv("2\n"),
        },
        {},
    ),
    "ogb_graphs": (
        {
            "raw/edge.csv.gz": _csv("0,1\n1,0\n0,1\n0,1\n"),
            "raw/edge-feat.csv.gz": _csv("0,1\n0,1\n2,0\n1,1\n"),
            "raw/node-feat.csv.gz": _csv("5,0\n6,1\n0,0\n1,1\n2,2\n1,0\n0,1\n"),
            "raw/graph-label.csv.gz": _csv("0\n1\n1\n"),
            "raw/num-node-list.csv.gz": _csv("3\n2\n2\n"),
            "raw/num-edge-list.csv.gz": _csv("2\n1\n1\n"),
            "split/s/train.csv.gz": _csv("0\n"),
            "split/s/valid.csv.gz": _csv("1\n"),
            "split/s/test.csv.gz": _csv("2\n"),
        },
        {"kind": "graph", "multi_label": True, "metric": "rocauc"},
    ),
    "ppi": (
        {
            f"{name}_{what}": content
            for name, ids in (("train", [1, 1, 2, 2, 2]), ("valid", [21, 21]), ("test", [23, 23]))
            for what, content in {
                "graph.json": json.dumps(
                    {"directed": False, "nodes": [{"id": i} for i in range(len(ids))],
                     "links": [{"source": 0, "target": 1}]}
                ).encode(),
                "feats.npy": _npy(np.arange(len(ids) * 2.0).reshape(-1, 2) + 1),
                "labels.npy": _npy(np.arange(len(ids) * 3).reshape(-1, 3) % 2),
                "graph_id.npy": _npy(ids),
            }.items()
        },
        {"multi_label": True, "metric": "micro_f1"},
    ),
    "wikics": (
        {
            "data.json": json.dumps(
                {
                    "features": [[0.5, float(i)] for i in range(6)],
                    "labels": [0, 1, 0, 1, 0, 1],
                    "links": [[1], [0, 2], [], [4], [3], [2]],
                    "train_masks": [[i == 0 for i in range(6)]] * 20,
                    "val_masks": [[i == 1 for i in range(6)]] * 20,
                    "stopping_masks": [[i == 2 for i in range(6)]] * 20,
                    "test_mask": [i > 2 for i in range(6)],
                }
            ).encode()
        },
        {},
    ),
    "webkb": (
        {
            "out1_node_feature_label.txt": b"node_id\tfeature\tlabel\n0\t1,1\t0\n1\t0,1\t1\n2\t1,0\t1\n",
            "out1_graph_edges.txt": b"node_id\tnode_id\n0\t1\n2\t2\n2\t0\n",
        },
        {"directed": True},
    ),
    "heterophilous": (
        {
            "rough.npz": _npz(
                node_features=np.ones((4, 2), np.float32),
                node_labels=np.array([0, 1, 1, 0]),
                edges=np.array([[0, 1], [2, 1], [3, 0]]),
                train_masks=np.stack([np.roll([True, False, False, False], k) for k in range(10)]),
                val_masks=np.stack([np.roll([False, True, False, False], k) for k in range(10)]),
                test_masks=np.stack([np.roll([False, False, True, False], k) for k in range(10)]),
            )
        },
        {},
    ),
}  # fmt: skip
"""Reader -> the files of a tiny set, and what its catalogue entry says of it."""


def registered(folder: Path, reader: str, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a catalogue for `files`, which are written below `folder`."""
    listed = []
    for name, content in files.items():
        path = folder / reader / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        listed.append({"path": f"{reader}/{name}", "sha256": hashlib.sha256(content).hexdigest()})
    known = {"kind": "node", "source": "a test", "licence": "none", "splits": [], "files": listed, "reader": reader}
    return known | dict(facts)


def _record(draw: Random, folder: Path) -> Callable[[], object]:
    original = record_bytes(record(row(), method="mlp"))
    text = original.decode()
    content = mutated_bytes(draw, original) if draw.randrange(3) == 0 else mutated_text(draw, text).encode()
    path = folder / "mlp-0123456789ab.json"
    path.write_bytes(content)

    def read() -> object:
        found = load_record(path)
        said = json.loads(content)
        assert agrees(said, found.model_dump(mode="json")), "the record says another thing than its file"
        return found

    return read


def agrees(said: Any, found: Any) -> bool:
    """Whether everything in `said` stands in `found`; a number may have been written in another way."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(key in found and agrees(said[key], found[key]) for key in said)
    if isinstance(said, list):
        return isinstance(found, list) and len(said) == len(found) and all(map(agrees, said, found))
    if said == found or str(said) == str(found):
        return True
    try:
        return float(said) == float(found)
    except (TypeError, ValueError, OverflowError):
        return False


def _sidecar(draw: Random, folder: Path) -> Callable[[], object]:
    original = npz_bytes({f"0-0/{name}": array for name, array in arrays(0).items()} | {"0-0/x/epochs": np.arange(3)})
    content = mutated_bytes(draw, original) if draw.randrange(2) else mutated_npz(draw, original)
    path = folder / "mlp-0123456789ab.npz"
    path.write_bytes(content)

    def read() -> object:
        found = read_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            assert sorted(archive.files) == sorted(found), "other arrays than the file has"
            assert all(archive[name].tobytes() == found[name].tobytes() for name in found), "other values"
        return found

    return read


def _suite(draw: Random, folder: Path) -> Callable[[], object]:
    content = mutated_bytes(draw, SUITE.encode()) if draw.randrange(4) == 0 else mutated_text(draw, SUITE).encode()
    path, twin = folder / "mine.toml", folder / "twin.toml"
    path.write_bytes(content)
    twin.write_text(SUITE, encoding="utf-8")

    def read() -> object:
        found = load_suite(path)
        one, other = (suite.model_dump(exclude={"asked", "path"}) for suite in (found, load_suite(twin)))
        same = tomllib.loads(content.decode()) == tomllib.loads(SUITE)
        assert (one == other) == same or same_seeds(found, load_suite(twin)), "a change without effect"
        return found

    return read


def same_seeds(one: Suite, other: Suite) -> bool:
    """Whether the two differ in how they write their seeds alone."""
    return list(one.seeds) == list(other.seeds)


def _raw(draw: Random, folder: Path) -> Callable[[], object]:
    reader = draw.choice(sorted(RAW))
    files, facts = RAW[reader]
    changed = draw.choice(sorted(files))
    entry = registered(folder, reader, files | {changed: mutated_file(draw, changed, files[changed])}, facts)

    def read() -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalogue, "_document", lambda: {"aliases": {}, "datasets": {"tiny": entry}})
            task = load_task("tiny", data=folder)
        index = task.graph.index
        assert not len(index) or 0 <= int(index.min()) <= int(index.max()) < task.num_nodes
        return task

    return read


KINDS: dict[str, Callable[[Random, Path], Callable[[], object]]] = {
    "record": _record, "side-car": _sidecar, "suite": _suite, "raw file": _raw,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is also where decoded sets go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "inside" / "cache"))
    (tmp_path / "inside").mkdir()
    yield tmp_path / "inside"


def one_mutation(kind: str, seed: int, folder: Path) -> tuple[object, str]:
    """(what was read, what was wrong with it) of one mutation."""
    return bounded(KINDS[kind](Random(f"{kind} {seed}"), folder), folder)


def wrong(kind: str, seeds: range, folder: Path) -> list[str]:
    """One line for each mutation that was neither read nor refused as it should be."""
    outcomes = {seed: one_mutation(kind, seed, folder) for seed in seeds}
    noticed = sum(isinstance(found, UserError) or bool(what) for found, what in outcomes.values())
    assert noticed > len(seeds) // 5, "the mutations change nothing"
    return [f"{kind} {seed}: {what}" for seed, (_, what) in outcomes.items() if what]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused(kind: str, folder: Path) -> None:
    assert wrong(kind, range(FEW), folder) == []


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_mutated_files_are_read_or_refused(kind: str, folder: Path) -> None:
    assert wrong(kind, range(MANY), folder) == []


@pytest.mark.parametrize("reader", sorted(RAW.keys() - {"planetoid"}))  # whose public split needs 500 nodes
def test_the_unchanged_set_is_read(reader: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registered(folder, reader, *RAW[reader])
    monkeypatch.setattr(catalogue, "_document", lambda: {"aliases": {}, "datasets": {"tiny": entry}})
    assert isinstance(load_task("tiny", data=folder), Task)


def test_the_unchanged_record_side_car_and_suite_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mutated_bytes", "mutated_text", "mutated_npz"):
        monkeypatch.setitem(globals(), name, lambda draw, content: content)
    wanted = {"record": Record, "side-car": dict, "suite": Suite}
    for kind, of in wanted.items():
        found, said = one_mutation(kind, 0, folder)
        assert isinstance(found, of) and said == "", (kind, found, said)


def _outside(folder: Path) -> None:
    (folder.parent / "escaped").write_text("x")


@pytest.mark.parametrize(
    ("careless", "said"),
    [
        (lambda folder: {}["key"], "KeyError"),
        (lambda folder: json.loads("[" * 100_000), "RecursionError"),
        (_outside, "outside the folder"),
        (lambda folder: os.system("true"), "outside the folder: os.system"),
        (lambda folder: len(b"x" * 2**27), "MiB"),
    ],
    ids=["another exception", "a traceback of depth", "writes outside", "runs a program", "takes memory"],
)
def test_a_careless_reader_is_told(
    careless: Callable[[Path], object], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control of the judge, with less memory."""
    monkeypatch.setattr(fuzz_limits, "MEMORY", 2**26)
    assert said in bounded(lambda: careless(folder), folder)[1]


def test_without_a_defence_the_fuzzer_finds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control of the mutations: numpy's own reader, which raises whatever zipfile and zlib do."""
    monkeypatch.setattr("gkdbench.records.sidecar.read_arrays", lambda path, **_: dict(np.load(path)))
    assert wrong("side-car", range(FEW), folder)


def test_a_refusal_names_the_file(folder: Path) -> None:
    found = [one_mutation("raw file", seed, folder)[0] for seed in range(12)]
    corrupt = [error for error in found if isinstance(error, CorruptData)]
    named = "tiny|ind\\.|" + re.escape(str(folder))
    assert corrupt and [error for error in corrupt if not re.search(named, str(error))] == []
