"""Data sets of another package that go wrong: a loader that fails, or a Task whose parts do not fit together."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gkdkernels.graph import CSRGraph

from gkdbench.data.task import Task

CAUSES: dict[str, str] = {}
"""Name of the data set -> a part of the sentence that refuses it."""
N, WIDTH = 90, 3


def good(**changes: Any) -> Task:
    """90 nodes in a ring, of 3 classes."""
    src = np.arange(N)
    edges = np.stack([src, (src + 1) % N])
    both = np.concatenate([edges, edges[::-1]], 1)
    task = Task.from_arrays("set", both, np.eye(WIDTH, dtype=np.float32)[src % 3], src % 3)
    return dataclasses.replace(task, **changes)


def _register(name: str, cause: str, load: Callable[[], Any]) -> None:
    globals()[name.replace("-", "_")] = load
    CAUSES[name] = cause


def _raising(error: BaseException) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def _changed(**changes: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: good(**{name: make() for name, make in changes.items()})


def _features(value: float, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    return lambda: torch.full((N, WIDTH), value, dtype=dtype)


def _labels(value: float, dtype: torch.dtype = torch.int64) -> Callable[[], Any]:
    return lambda: torch.full((N,), value, dtype=dtype)


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _exits() -> Any:
    sys.exit(3)


def _deep() -> Any:
    return _deep()


def _split(**parts: Any) -> Callable[[], Any]:
    usual = {"train": np.arange(30), "val": np.arange(30, 60), "test": np.arange(60, 90)} | parts
    return lambda: {f"own/0/{name}": np.asarray(ids, dtype=np.int64) for name, ids in usual.items()}


def _arrays(**given: Any) -> Callable[[], Any]:
    src = np.arange(N)
    usual = {"edge_index": np.stack([src, src]), "features": np.ones((N, 2)), "labels": src % 3} | given
    return lambda: Task.from_arrays("set", **usual)


_register("bad-raises", "KeyError: 'x'", _raising(KeyError("x")))
_register("bad-divides", "ZeroDivisionError", lambda: 1 // 0)
_register("bad-file", "FileNotFoundError", lambda: open("/no/such/file"))  # noqa: SIM115
_register("bad-exits", "SystemExit: 3", _exits)
_register("bad-recurses", "RecursionError", _deep)
_register("bad-memory", "MemoryError", _raising(MemoryError()))
_register("bad-mute", "no text: its __str__ raises RuntimeError", _raising(_Mute()))
_register("bad-surrogate", r"file\udcff", _raising(OSError("file\udcff")))
_register("bad-novel", "ValueError: xxx", _raising(ValueError("x" * 10**6)))
_register("bad-import", "ModuleNotFoundError", lambda: __import__("no_such_module"))
_register("bad-none", "expected a Task (see Task.from_arrays), got a NoneType", lambda: None)
_register("bad-class", "expected a Task (see Task.from_arrays), got a type", lambda: Task)
_register("bad-pair", "expected a Task (see Task.from_arrays), got a tuple", lambda: (good(), good()))
_register("bad-kind", "kind: expected 'node' or 'graph', got 'edge'", _changed(kind=lambda: "edge"))
_register("bad-nan", "features: expected finite float32 numbers", _changed(features=_features(np.nan)))
_register("bad-inf", "features: expected finite float32 numbers", _changed(features=_features(np.inf)))
_register("bad-double", "got torch.float64", _changed(features=_features(1.0, torch.float64)))
_register("bad-ints", "got torch.int64", _changed(features=_features(1, torch.int64)))
_register("bad-rows", "features: expected 90 rows", _changed(features=lambda: torch.ones(5, 2)))
_register("bad-numpy", "expected a Task, got", _changed(features=lambda: "features"))
_register("bad-class-9", "labels: expected [M] int64 in [-1, 3)", _changed(labels=_labels(9)))
_register("bad-class-minus", "labels: expected [M] int64 in [-1, 3)", _changed(labels=_labels(-7)))
_register("bad-float-labels", "labels: expected [M] int64", _changed(labels=_labels(0.5, torch.float32)))
_register("bad-column", "labels: expected [M] int64", _changed(labels=lambda: torch.zeros(N, 1, dtype=torch.int64)))
_register("bad-short", "labels: expected 90 rows", _changed(labels=lambda: torch.zeros(5, dtype=torch.int64)))
_register("bad-several", "labels: expected [M, 3] float32", _changed(multi_label=lambda: True))
_register("bad-metric", "metric", _changed(metric=lambda: "acc"))
_register("bad-fit", "metric 'micro_f1': expected several labels", _changed(metric=lambda: "micro_f1"))
_register("bad-borders", "graph_ptr: expected", _changed(kind=lambda: "graph"))
_register("bad-ptr", "graph_ptr: expected numbers that rise", _changed(graph_ptr=lambda: torch.tensor([0, 50, 40, 90])))
_register(
    "bad-wide",
    "graph: expected as many rows as columns",
    _changed(graph=lambda: CSRGraph.from_edge_index(torch.tensor([[95], [0]]), (N, 100), False)),
)
_register("bad-overlap", "an overlap: 1 items", _changed(official=_split(test=[0, 60])))
_register("bad-outside", "expected ids in [0, 90)", _changed(official=_split(test=[90])))
_register("bad-empty", "expected one or more items, got none", _changed(official=_split(val=[])))
_register("bad-edges", "edge_index", _arrays(edge_index=np.array([[0], [N]])))
_register("bad-shape", "edge_index: expected shape [2, E]", _arrays(edge_index=np.zeros((3, 4), dtype=np.int64)))

NAMES = frozenset(CAUSES)
