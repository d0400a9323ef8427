"""Measures of every edge and their gradients on the CPU, as compiled loops (extra `numba`; runs only when named).

One pass over the edges of each row, rows shared out among torch's number of threads; the arguments of
`structure_kl.cpu`. A row's sum runs in the order of its edges, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.numba_tools import CHUNK_ROWS, FAST_SUMS, loops, run
from gkdkernels.structure_kl.cpu import inverse_norm
from gkdkernels.structure_kl.edge_rows import EdgeRows

_KIND = {"l1": 0, "square": 1, "cosine": 2}


def measure(kind: str, x: Tensor, rows: EdgeRows) -> Tensor:
    """[E] the measure of every edge of ``x: [N, D]``, fp32 or fp64."""
    out = x.new_empty(rows.other.numel())
    scale = inverse_norm(x) if kind == "cosine" else x.new_empty(0)
    run(structure_kl_fwd_measure, _KIND[kind], x, scale, rows.indptr, rows.other, out)
    return out


def gradient(kind: str, x: Tensor, rows: EdgeRows, weight: Tensor, value: Tensor) -> Tensor:
    """[N, D] ``sum_e weight_e dm_e / dx_i`` over the edges of each row i; see `structure_kl.cpu.gradient`."""
    out = torch.zeros_like(x)
    scale = inverse_norm(x) if kind == "cosine" else x.new_empty(0)
    run(structure_kl_bwd_gradient, _KIND[kind], x, scale, rows.indptr, rows.other, weight.contiguous(), value, out)
    return out


@loops(FAST_SUMS)
def structure_kl_fwd_measure(kind: int, x: Any, scale: Any, indptr: Any, other: Any, out: Any) -> None:
    nodes, width = x.shape
    for chunk in numba.prange((nodes + CHUNK_ROWS - 1) // CHUNK_ROWS):
        for i in range(chunk * CHUNK_ROWS, min(nodes, (chunk + 1) * CHUNK_ROWS)):
            own = x[i]
            for e in range(indptr[i], indptr[i + 1]):
                there = x[other[e]]
                total = x.dtype.type(0)
                if kind == 0:
                    for d in range(width):
                        total += abs(own[d] - there[d])
                elif kind == 1:
                    for d in range(width):
                        total += (own[d] - there[d]) * (own[d] - there[d])
                else:
                    for d in range(width):
                        total += own[d] * there[d]
                    total *= scale[i] * scale[other[e]]
                out[e] = total


@loops(FAST_SUMS)
def structure_kl_bwd_gradient(
    kind: int, x: Any, scale: Any, indptr: Any, other: Any, weight: Any, value: Any, out: Any
) -> None:
    nodes, width = x.shape
    for chunk in numba.prange((nodes + CHUNK_ROWS - 1) // CHUNK_ROWS):
        for i in range(chunk * CHUNK_ROWS, min(nodes, (chunk + 1) * CHUNK_ROWS)):
            own, mine = x[i], out[i]
            along = x.dtype.type(0)
            for e in range(indptr[i], indptr[i + 1]):
                there, w = x[other[e]], weight[e]
                if kind == 0:
                    for d in range(width):
                        mine[d] += w * np.sign(own[d] - there[d])
                elif kind == 1:
                    for d in range(width):
                        mine[d] += (w + w) * (own[d] - there[d])
                else:
                    w *= scale[i]
                    along += w * scale[i] * value[e]
                    w *= scale[other[e]]
                    for d in range(width):
                        mine[d] += w * there[d]
            if kind == 2:
                for d in range(width):
                    mine[d] -= along * own[d]
