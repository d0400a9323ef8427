"""The private cache of decoded sets: plain .npy files and a meta.json, memory-mapped copy-on-write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures
from torch import Tensor

from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import CorruptData, refuse_in_worker
from gkdbench.data.task import StoredFeatures, Task
from gkdbench.errors import UserError

LAYOUT = 2
"""Raised when a reader or this layout changes what is stored: old entries are then left alone, not misread."""


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/gkdbench/datasets``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "gkdbench" / "datasets"


def entry_folder(info: DatasetInfo, digests: Mapping[str, str]) -> Path:
    """Path of the set decoded from files of these digests; other files or other facts are another entry."""
    facts = [LAYOUT, info.reader, info.kind, info.metric, info.multi_label, info.directed, info.note, info.content_hash]
    parts = json.dumps([facts, sorted(digests.items())])
    return cache_root() / f"{info.name}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def store(task: Task, folder: Path) -> None:
    """Write `task` under a temporary name next to `folder` and rename; a concurrent writer's entry is kept."""
    refuse_in_worker("writing the data cache")
    arrays = _arrays(task)
    meta = {
        "name": task.name,
        "kind": task.kind,
        "num_classes": task.num_classes,
        "multi_label": task.multi_label,
        "metric": task.metric,
        "note": task.note,
        "num_features": task.num_features,
        "symmetric": task.graph.symmetric,
        "content_hash": task.content_hash,
        "arrays": {key: [str(array.dtype), list(array.shape)] for key, array in arrays.items()},
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"the data cache {folder.parent} cannot be written: {error.strerror or error}; "
            f"set XDG_CACHE_HOME to a writable folder"
        ) from error
    try:
        for key, array in arrays.items():
            np.save(scratch / _file_name(key), array, allow_pickle=False)
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        os.rename(scratch, folder)
    except OSError as error:
        if not (folder / "meta.json").is_file():
            raise UserError(
                f"the data cache {folder} cannot be written: {error.strerror or error}; "
                f"free some space or set XDG_CACHE_HOME"
            ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load(folder: Path) -> Task:
    """The task stored in `folder`, memory-mapped; writes to its tensors stay private to the process.

    Raises:
        CorruptData: a missing, truncated or reshaped file, or content of another hash than the stored one.
    """
    refuse_in_worker("the data cache")
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {key: _open(folder / _file_name(key), *wanted) for key, wanted in meta["arrays"].items()}
        task = _assemble(meta, arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"the cached copy {folder} is damaged ({error}); delete that folder") from error
    if task.content_hash != meta["content_hash"]:
        raise CorruptData(
            f"{folder}: expected content {meta['content_hash']} in the cached copy, got {task.content_hash}; "
            f"delete that folder"
        )
    return task


def _arrays(task: Task) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, Tensor | None] = {
        "indptr": task.graph.indptr,
        "index": task.graph.index,
        "labels": task.labels,
        "graph_ptr": task.graph_ptr,
        "edge_features": task.edge_features,
    }
    if isinstance(task.features, SparseFeatures):
        found["features_indptr"] = task.features.graph.indptr
        found["features_index"] = task.features.graph.index
        found["features_value"] = task.features.value
    else:
        found["features"] = task.features
    arrays = {key: value.numpy() for key, value in found.items() if value is not None}
    return arrays | {f"official/{key}": ids for key, ids in task.official.items()}


def _assemble(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Task:
    tensors = {key: _tensor(array) for key, array in arrays.items() if not key.startswith("official/")}
    features: StoredFeatures
    if "features" in tensors:
        features = tensors["features"]
    else:
        columns = CSRGraph(tensors["features_indptr"], tensors["features_index"], meta["num_features"])
        features = SparseFeatures(columns, tensors["features_value"])
    indptr = tensors["indptr"]
    return Task(
        name=meta["name"],
        kind=meta["kind"],
        graph=CSRGraph(indptr, tensors["index"], indptr.numel() - 1, meta["symmetric"]),
        features=features,
        labels=tensors["labels"],
        num_classes=meta["num_classes"],
        multi_label=meta["multi_label"],
        metric=meta["metric"],
        graph_ptr=tensors.get("graph_ptr"),
        edge_features=tensors.get("edge_features"),
        official={
            key.removeprefix("official/"): np.array(array) for key, array in arrays.items() if key[:9] == "official/"
        },
        note=meta["note"],
    )


def _open(path: Path, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    # mode "c" (copy-on-write) gives torch a writable buffer; the file itself is never changed
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="c" if 0 not in shape else None, allow_pickle=False)
    if str(array.dtype) != dtype or list(array.shape) != shape:
        raise ValueError(f"{path.name}: expected {dtype}{shape}, got {array.dtype}{list(array.shape)}")
    return array


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a read-only buffer would be a mistake here
        return torch.from_numpy(array)


def _file_name(key: str) -> str:
    return key.replace("/", "~") + ".npy"
