"""What every reader ends with: arrays in, a clean Task's parts out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from gkdkernels.graph import CSRGraph, SparseFeatures

from gkdbench.data.task import StoredFeatures

SPARSE_BELOW = 0.25
"""Features with a smaller share of non-zeros are stored as SparseFeatures."""

NumpyArray = np.ndarray[Any, Any]


def graph_of(src: NumpyArray, dst: NumpyArray, num_nodes: int, *, undirected: bool, loops: bool = False) -> CSRGraph:
    """Message-passing edges ``src -> dst`` ([E] int each) as a CSRGraph without parallel edges.

    Args:
        undirected: add the reverse of every edge.
        loops: keep self-loops that the file lists.
    """
    src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
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
    """``matrix: [N, D]`` as float32, sparse below SPARSE_BELOW non-zeros."""
    size = max(int(np.prod(matrix.shape)), 1)
    if isinstance(matrix, np.ndarray) and np.count_nonzero(matrix) / size >= SPARSE_BELOW:
        return torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
    rows = sp.csr_array(matrix).astype(np.float32)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    rows.sort_indices()
    if rows.nnz / size >= SPARSE_BELOW:
        return torch.from_numpy(np.ascontiguousarray(rows.toarray()))
    indptr, index = (torch.from_numpy(part.astype(np.int64)) for part in (rows.indptr, rows.indices))
    return SparseFeatures(CSRGraph(indptr, index, int(matrix.shape[1])), torch.from_numpy(rows.data))


def one_hot(codes: NumpyArray, width: int | None = None) -> sp.csr_array:
    """[N, width] float32 with a one at column ``codes[i]`` of row i; ``codes: [N]`` int >= 0."""
    width = int(codes.max()) + 1 if width is None else width
    ones = np.ones(len(codes), np.float32)
    return sp.csr_array(
        (ones, codes.astype(np.int64), np.arange(len(codes) + 1)),
        shape=(len(codes), width),
    )


def multi_hot(codes: NumpyArray) -> sp.csr_array:
    """[N, sum of widths] float32: the one-hot columns of each column of ``codes: [N, F]`` int >= 0, side by side.

    A linear map of it is the sum of F embeddings, one of each code.
    """
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


def mask_ids(mask: NumpyArray) -> NumpyArray:
    """[M] int64 positions where ``mask: [N]`` is set."""
    return np.flatnonzero(mask).astype(np.int64)
