"""What every reader ends with: arrays in, a clean Task's parts out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures

from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.task import StoredFeatures

SPARSE_BELOW = 0.25
"""Features with a smaller share of non-zeros are stored as SparseFeatures."""

NumpyArray = np.ndarray[Any, Any]

MAX_IDS = 2**31
"""Nodes of one set: two ids multiply without a wrap."""
MAX_DENSE = 2**26
"""Numbers of a one-hot matrix that is stored densely; or 256 a row, where that is more."""


def graph_of(src: NumpyArray, dst: NumpyArray, num_nodes: int, *, undirected: bool, loops: bool = False) -> CSRGraph:
    """Message-passing edges ``src -> dst`` ([E] int each) as a CSRGraph without parallel edges.

    Args:
        undirected: add the reverse of every edge.
        loops: keep self-loops that the file lists.

    Raises:
        CorruptData: a node outside ``[0, num_nodes)``, or more nodes than `MAX_IDS`.
    """
    src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    if num_nodes > MAX_IDS:  # pairs of ids become one number below
        raise CorruptData(f"edges: expected at most {MAX_IDS} nodes, got {num_nodes}; fetch the files again")
    for ids in (src, dst):
        if ids.size and (ids.min() < 0 or ids.max() >= num_nodes):
            raise CorruptData(
                f"edges: expected nodes in [0, {num_nodes}), got {ids.min()}..{ids.max()}; fetch the files again"
            )
    if undirected:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    if not loops:
        keep = src != dst
        src, dst = src[keep], dst[keep]
    pairs = np.unique(dst * num_nodes + src)
    index = torch.from_numpy(pairs % num_nodes if num_nodes else pairs)
    indptr = np.zeros(num_nodes + 1, np.int64)
    if num_nodes:
        np.cumsum(np.bincount(pairs // num_nodes, minlength=num_nodes), out=indptr[1:])
    return CSRGraph(torch.from_numpy(indptr), index, num_nodes, True if undirected else None)


def features_of(matrix: NumpyArray | sp.csr_array) -> StoredFeatures:
    """``matrix: [N, D]`` as float32, sparse below SPARSE_BELOW non-zeros.

    Raises:
        CorruptData: NaN or infinite numbers, or no matrix of numbers.
    """
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise CorruptData(
            f"features: expected a matrix of numbers, got {matrix.dtype} of shape {list(matrix.shape)}; fetch "
            "them again"
        )
    size = max(matrix.shape[0] * matrix.shape[1], 1)
    if isinstance(matrix, np.ndarray) and np.count_nonzero(matrix) / size >= SPARSE_BELOW:
        return _finite(torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)))
    rows = sp.csr_array(matrix).astype(np.float32)
    _finite(torch.from_numpy(rows.data))
    rows.sum_duplicates()
    rows.eliminate_zeros()
    rows.sort_indices()
    if rows.nnz / size >= SPARSE_BELOW:
        return torch.from_numpy(np.ascontiguousarray(rows.toarray()))
    indptr, index = (torch.from_numpy(part.astype(np.int64)) for part in (rows.indptr, rows.indices))
    return SparseFeatures(CSRGraph(indptr, index, int(matrix.shape[1])), torch.from_numpy(rows.data))


def _finite(values: torch.Tensor) -> torch.Tensor:
    if not bool(torch.isfinite(values).all()):
        raise CorruptData("features: expected finite numbers, got NaN or infinite ones; fetch them again")
    return values


def one_hot(codes: NumpyArray, width: int | None = None) -> sp.csr_array:
    """[N, width] float32 with a one at column ``codes[i]`` of row i; ``codes: [N]`` int >= 0.

    Raises:
        CorruptData: a code outside ``[0, width)``: scipy would write outside the matrix.
    """
    width = int(codes.max(initial=-1)) + 1 if width is None else width
    _check_codes(codes, width)
    ones = np.ones(len(codes), np.float32)
    return sp.csr_array(
        (ones, codes.astype(np.int64), np.arange(len(codes) + 1)),
        shape=(len(codes), width),
    )


def multi_hot(codes: NumpyArray) -> sp.csr_array:
    """[N, sum of widths] float32: the one-hot columns of each column of ``codes: [N, F]`` int >= 0, side by side.

    A linear map of it is the sum of F embeddings, one of each code.

    Raises:
        CorruptData: a code outside ``[0, MAX_IDS)``.
    """
    _check_codes(codes, MAX_IDS)
    widths = codes.max(axis=0, initial=0).astype(np.int64) + 1
    first = np.concatenate([[0], np.cumsum(widths)])
    count, fields = codes.shape
    return sp.csr_array(
        (
            np.ones(codes.size, np.float32),
            (codes.astype(np.int64) + first[:-1]).ravel(),
            np.arange(count + 1, dtype=np.int64) * fields,
        ),
        shape=(count, int(first[-1])),
    )


def _check_codes(codes: NumpyArray, width: int) -> None:
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= width or width > MAX_IDS):
        raise CorruptData(
            f"codes: expected values in [0, {min(width, MAX_IDS)}), got {codes.min()}..{codes.max()}; fetch them again"
        )


def dense(matrix: sp.csr_array, what: str) -> torch.Tensor:
    """A one-hot matrix as a dense one, [N, width] float32.

    Raises:
        CorruptData: it would take more than `MAX_DENSE` allows.
    """
    rows, width = matrix.shape
    if rows * width > max(MAX_DENSE, 256 * rows):
        raise CorruptData(
            f"{what}: expected few different values, got {width} columns for {rows} rows, which do not fit into "
            "memory; fetch the files again"
        )
    return torch.from_numpy(np.ascontiguousarray(matrix.toarray()))


def mask_ids(mask: NumpyArray, count: int | None = None) -> NumpyArray:
    """[M] int64 positions where ``mask: [N]`` is set.

    Raises:
        CorruptData: `count` is given, and the mask has another length, or is no mask.
    """
    if count is not None and (mask.shape != (count,) or mask.dtype.kind not in "biuf"):
        raise CorruptData(f"mask: expected {count} entries, got {mask.dtype} of shape {list(mask.shape)}")
    return np.flatnonzero(mask).astype(np.int64)
