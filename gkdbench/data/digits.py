"""scikit-learn's 1,797 handwritten digits as a node task and as a graph task: real data with no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from gkdbench.data.build import NumpyArray, features_of, graph_of
from gkdbench.data.rawfiles import refuse_in_worker
from gkdbench.data.task import Task

NEIGHBOURS = 5
SIDE = 8
_TABLE = Path("datasets", "data", "digits.csv.gz")  # of scikit-learn: 64 pixels and the label a line


def digits_knn() -> Task:
    """1,797 nodes, 64 pixels in [0, 1], each joined to its 5 nearest digits (Euclidean, ties to the lower id)."""
    pixels, labels = _digits()
    squares = (pixels.astype(np.float64) ** 2).sum(axis=1)
    # distances of small integers are exact in double precision: the graph is the same on every machine
    distance = squares[:, None] + squares[None, :] - 2 * (pixels.astype(np.float64) @ pixels.T.astype(np.float64))
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    dst = np.repeat(np.arange(len(labels)), NEIGHBOURS)
    return Task(
        name="digits-knn",
        kind="node",
        graph=graph_of(nearest.ravel(), dst, len(labels), undirected=True),
        features=features_of(pixels / 16.0),
        labels=torch.from_numpy(labels),
        num_classes=10,
        note="built in: handwritten digits joined by nearest neighbours",
    )


def digits_grid() -> Task:
    """1,797 graphs of 8x8 pixels joined to their 4 neighbours; features: ink in [0, 1], row and column in [0, 1]."""
    pixels, labels = _digits()
    count, size = len(labels), SIDE * SIDE
    cell = np.arange(size).reshape(SIDE, SIDE)
    src = np.concatenate([cell[:, :-1].ravel(), cell[:-1].ravel()])
    dst = np.concatenate([cell[:, 1:].ravel(), cell[1:].ravel()])
    offset = np.repeat(np.arange(count) * size, len(src))
    row, column = np.divmod(np.tile(np.arange(size), count), SIDE)
    features = np.stack([pixels.ravel() / 16.0, row / (SIDE - 1), column / (SIDE - 1)], axis=1)
    return Task(
        name="digits-grid",
        kind="graph",
        graph=graph_of(
            np.tile(src, count) + offset,
            np.tile(dst, count) + offset,
            count * size,
            undirected=True,
        ),
        features=torch.from_numpy(features.astype(np.float32)),
        labels=torch.from_numpy(labels),
        num_classes=10,
        graph_ptr=torch.arange(count + 1) * size,
        note="built in: handwritten digits as 8x8 grid graphs",
    )


def _digits() -> tuple[NumpyArray, NumpyArray]:
    """([1797, 64] float64 in 0..16, [1797] int64)."""
    refuse_in_worker("the digits data")
    installed = find_spec("sklearn")
    file = Path(next(iter(installed.submodule_search_locations or []), "") if installed else "") / _TABLE
    if file.is_file():  # read directly: `sklearn.datasets` imports pandas and scipy.stats, two seconds for each command
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    bunch = load_digits()
    return bunch.data, bunch.target.astype(np.int64)
