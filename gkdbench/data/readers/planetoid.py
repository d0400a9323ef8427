"""Planetoid's ``ind.<name>.*`` (Yang et al. 2016): Python 2 pickles, read by an unpickler that builds nothing else."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of, mask_ids
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import in_range, integers, sparse_matrix
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker
from gkdbench.data.readers.masks import numbered_mask_files
from gkdbench.data.task import Task
from gkdbench.safe_files import open_regular


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """Nodes in the order of the official loaders: allx, then the test nodes at the ids of ``test.index``.

    Test ids without a row in the files (15 in CiteSeer) have no features, no edges and label -1.
    """
    refuse_in_worker(info.name)
    part = {end: restricted_load(raw.ending(f".{end}")) for end in ("x", "tx", "allx", "y", "ty", "ally", "graph")}
    seen, classes = part["allx"].shape[0], part["ally"].shape[1]
    path = raw.ending(".test.index")
    test = integers(path)
    in_range(path, test, 0, 2 * (seen + len(test)), "test node")  # some ids have no row: 15 in CiteSeer
    num_nodes = max(int(test.max()) + 1, seen)

    place = sp.csr_array(
        (
            np.ones(seen + len(test), np.float32),
            (np.concatenate([np.arange(seen), test]), np.arange(seen + len(test))),
        ),
        shape=(num_nodes, seen + len(test)),
    )
    features = place @ sp.vstack([part["allx"], part["tx"]], format="csr")
    one_hot = np.zeros((num_nodes, classes), np.int64)
    one_hot[:seen], one_hot[test] = part["ally"], part["ty"]
    labels = np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), -1)

    neighbours: Mapping[int, list[int]] = part["graph"]
    src = np.concatenate([np.full(len(out), node, np.int64) for node, out in neighbours.items()])
    dst = np.concatenate([np.asarray(out, np.int64) for out in neighbours.values()])
    train = len(part["y"])
    official: dict[str, NumpyArray] = {
        "planetoid-public/0/train": np.arange(train),
        "planetoid-public/0/val": np.arange(train, train + 500),
        "planetoid-public/0/test": np.sort(test),
    }
    for key, mask in numbered_mask_files(raw).items():
        ids = mask_ids(mask, num_nodes)
        official[key] = ids[labels[ids] >= 0]
    return Task(
        name=info.name,
        kind="node",
        graph=graph_of(src, dst, num_nodes, undirected=True),
        features=features_of(features),
        labels=torch.from_numpy(labels),
        num_classes=classes,
        official=official,
        note=info.note,
    )


def restricted_load(path: Path) -> Any:
    """The dict, array or CSR matrix pickled in `path`; a pickle that names anything else raises CorruptData."""
    refuse_in_worker(path.name)
    try:
        with open_regular(path) as stream:
            found = _Restricted(stream, encoding="latin1").load()
            return _matrix(path, found) if isinstance(found, _CsrState) else found
    except CorruptData:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise CorruptData(
            f"{path}: expected a readable pickle, got {type(error).__name__}: {error}; fetch it again"
        ) from error


class _CsrState:
    """Replaces scipy's csr_matrix while unpickling: keeps its state as data, whatever the scipy version."""


def _matrix(path: Path, stored: _CsrState) -> sp.csr_array:
    state = vars(stored)
    shape = state.get("_shape", state.get("shape"))
    return sparse_matrix(path, state["data"], state["indices"], state["indptr"], shape, path.name)


def _reconstructor(cls: type, base: type, state: object) -> object:
    """`copyreg._reconstructor` for the one class that the files build this way."""
    if cls is not _CsrState or base is not object:
        raise CorruptData(f"a pickle that builds {cls.__name__} on {base.__name__} is refused")
    return _CsrState()


def _array_constructor() -> Callable[..., Any]:
    constructor: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    return constructor


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("scipy.sparse.csr", "csr_matrix"): _CsrState,
    ("scipy.sparse._csr", "csr_matrix"): _CsrState,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("numpy.core.multiarray", "_reconstruct"): _array_constructor(),
    ("numpy._core.multiarray", "_reconstruct"): _array_constructor(),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise CorruptData(f"a raw file's pickle asks for {module}.{name}, which is refused; fetch the file again")
        return _ALLOWED[module, name]
