"""`rbm_layer` on the CPU as one compiled loop over rows, and over each row's non-zeros (extra `numba`).

A server often predicts one row at a time, and then the cost is the calls: here there is one, and no thread to wake. A
zero of the row, whether of a bag of words or of what a ReLU left, skips a row of weights. Many rows are shared
out among threads; the sums of a row run in the order of its columns, whatever their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.numba_tools import FAST_SUMS, exp, loops, part, run
from gkdkernels.experts.routing import EPS, as_dense
from gkdkernels.graph import Features, MixedFeatures, SparseFeatures

if TYPE_CHECKING:
    from gkdkernels.experts.folded_types import FoldedExperts

_CHUNK = 16  # rows that a thread takes at a time
_DENSE = np.empty(0, np.int64)  # the row pointers and columns of features that have none


def rbm_layer_numba(x: Features, folded: FoldedExperts, k: int, relu: bool) -> Tensor:
    """As `rbm_layer`. Half precision is raised to fp32, mixed features made dense beforehand."""
    dense = as_dense(x) if isinstance(x, MixedFeatures) else x
    value = dense.value[None] if isinstance(dense, SparseFeatures) else dense
    places: tuple[Any, Any] = (_DENSE, _DENSE)
    if isinstance(dense, SparseFeatures):
        places = (dense.graph.indptr.numpy(), dense.graph.index.numpy())
    weight, bias, direction = folded.arrays
    rows = value.detach().to(torch.promote_types(value.dtype, torch.float32)).contiguous().numpy()
    out = np.empty((x.shape[0], weight.shape[2]), weight.dtype)
    arguments = (rows, *places, weight, bias, direction, k, relu, EPS, out)
    if len(out) > _CHUNK:
        run(rbm_layer_fwd_shared_out, *arguments)
    else:
        rbm_layer_fwd_in_turn(*arguments)
    return torch.from_numpy(out).to(value.dtype)


@part(FAST_SUMS)
def _non_zeros(x: Any, indptr: Any, index: Any, i: int, column: Any, value: Any) -> Any:
    """Columns and values of row i, and their number; an empty `indptr` means that x is dense."""
    count = 0
    if indptr.size:
        for e in range(indptr[i], indptr[i + 1]):
            column[count], value[count] = index[e], x[0, e]
            count += 1
        return count
    for d in range(x.shape[1]):
        if x[i, d] != 0:
            column[count], value[count] = d, x[i, d]
            count += 1
    return count


@part(FAST_SUMS)
def _route(
    column: Any, value: Any, count: int, direction: Any, least: Any, score: Any, expert: Any, share: Any
) -> None:
    """The experts of the largest cosines, ties to the lowest, NaN first, and the softmax of those cosines."""
    square = value.dtype.type(0)
    for j in range(count):
        square += value[j] * value[j]
    scale = value.dtype.type(1) / max(np.sqrt(square), value.dtype.type(least))
    for e in range(score.size):
        total = value.dtype.type(0)
        for j in range(count):
            total += value[j] * direction[e, column[j]]
        score[e] = total * scale
    total = value.dtype.type(0)
    for place in range(expert.size):
        best = -1
        for e in range(score.size):
            taken = False
            for earlier in range(place):
                taken |= expert[earlier] == e
            missing = score[e] != score[e]
            if not taken and (best < 0 or score[e] > score[best] or (missing and score[best] == score[best])):
                best = e
        expert[place] = best
        share[place] = exp(score[best] - score[expert[0]])
        total += share[place]
    for place in range(expert.size):
        share[place] /= total


@part(FAST_SUMS)
def _mix(
    column: Any, value: Any, count: int, weight: Any, bias: Any, expert: Any, share: Any, relu: bool, out: Any
) -> None:
    """The experts' outputs, weighted; four non-zeros at a time, so that `out` is read and written a fourth as often."""
    for h in range(out.size):
        out[h] = 0
    for place in range(expert.size):
        matrix, a = weight[expert[place]], share[place]
        for h in range(out.size):
            out[h] += a * bias[expert[place], h]
        for j in range(0, count - 3, 4):
            w0, w1, w2, w3 = matrix[column[j]], matrix[column[j + 1]], matrix[column[j + 2]], matrix[column[j + 3]]
            a0, a1, a2, a3 = a * value[j], a * value[j + 1], a * value[j + 2], a * value[j + 3]
            for h in range(out.size):
                out[h] += a0 * w0[h] + a1 * w1[h] + a2 * w2[h] + a3 * w3[h]
        for j in range(count - count % 4, count):
            w, b = matrix[column[j]], a * value[j]
            for h in range(out.size):
                out[h] += b * w[h]
    if relu:
        for h in range(out.size):
            out[h] = 0 if out[h] < 0 else out[h]  # NaN stays


@part()
def _rows(
    x: Any, indptr: Any, index: Any, weight: Any, bias: Any, direction: Any, k: int, relu: bool, least: Any, out: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    width = x.shape[1]  # of sparse features all non-zeros: no row has more
    column, value = np.empty(width, np.int64), np.empty(width, x.dtype)
    score, share = np.empty(direction.shape[0], x.dtype), np.empty(k, x.dtype)
    expert = np.empty(k, np.int64)
    for i in range(start, stop):
        count = _non_zeros(x, indptr, index, i, column, value)
        _route(column, value, count, direction, least, score, expert, share)
        _mix(column, value, count, weight, bias, expert, share, relu, out[i])


@loops(parallel=False)
def rbm_layer_fwd_in_turn(
    x: Any, indptr: Any, index: Any, weight: Any, bias: Any, direction: Any, k: int, relu: bool, least: Any, out: Any
) -> None:
    _rows(x, indptr, index, weight, bias, direction, k, relu, least, out, 0, out.shape[0])


@loops()
def rbm_layer_fwd_shared_out(
    x: Any, indptr: Any, index: Any, weight: Any, bias: Any, direction: Any, k: int, relu: bool, least: Any, out: Any
) -> None:
    for chunk in numba.prange((out.shape[0] + _CHUNK - 1) // _CHUNK):
        stop = min(out.shape[0], (chunk + 1) * _CHUNK)
        _rows(x, indptr, index, weight, bias, direction, k, relu, least, out, chunk * _CHUNK, stop)
