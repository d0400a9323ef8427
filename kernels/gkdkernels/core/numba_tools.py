"""What the compiled loops on the CPU share (extra `numba`): how they are compiled, how they are run, and exp and log.

Numba has no vector mathematics library: a call of ``math.exp`` keeps LLVM from vectorising the loop around it. `exp`
and `log` below are plain arithmetic in fp32, so that a loop over them becomes one over vectors; in fp64 they are the
library's own.

A division by zero gives infinity or NaN, as torch's does. Compiled code is kept on disk next to each file of loops and
is made again when that file changes; after a change of this one, delete ``__pycache__/*.nbi``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic, overload
from torch import Tensor

from gkdkernels.core.dispatch import loops_ran

_overload: Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]] = overload
_intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic

CHUNK_ROWS = 64  # rows of power-law graphs are far from equal: small chunks share them evenly
# lets sums be vectorised and products be fused into them; without nnan and ninf, NaN stays NaN
FAST_SUMS = frozenset({"reassoc", "contract", "nsz", "arcp"})

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # the high part times an exponent is exact
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: a sum with it is rounded to an integer, which stands in its low bits
_LEAST, _MOST = np.float32(-87.0), np.float32(88.0)


def loops(
    flags: frozenset[str] = frozenset(), *, parallel: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function whose ``numba.prange`` is shared out among threads.

    Args:
        flags: LLVM's liberties with floating point, e.g. `FAST_SUMS`; none leaves every operation as it is written.
        parallel: False: one thread, which nobody has to be woken for.
    """
    compiled: Callable[[Callable[..., None]], Callable[..., None]] = numba.njit(
        parallel=parallel, cache=True, error_model="numpy", fastmath=set(flags)
    )
    return compiled


def part(flags: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile what loops call; `flags` as in `loops`, for the operations of this function."""
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(error_model="numpy", fastmath=set(flags))
    return compiled


def run(loop: Callable[..., None], *arguments: Any) -> None:
    """Call a compiled loop with as many threads as torch has; tensors become arrays on the same memory.

    torch's number of threads stays what it was: numba's first parallel loop sets that of OpenMP, which both share.
    """
    loops_ran()
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        loop(*(a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments))
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@_intrinsic
def pointer(_: Any, address: Any) -> Any:
    """What `numba.carray` takes, of an integer: a loop can then read any number of tensors."""

    def convert(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return numba.types.voidptr(address), convert


def exp(x: Any) -> Any:
    """``e^x`` in fp32 or fp64; NaN for NaN. In fp32 within 1 ulp, 0 below -87 and infinite above 88."""
    raise NotImplementedError("compiled code only")


def log(x: Any) -> Any:
    """``ln x`` in fp32 or fp64 of a normal number above 0; NaN for NaN. In fp32 within 1 ulp."""
    raise NotImplementedError("compiled code only")


@_overload(exp, jit_options={"fastmath": {"contract"}})
def _exp(x: Any) -> Callable[[Any], Any]:
    return _exp_single if x == numba.float32 else _exp_double


@_overload(log, jit_options={"fastmath": {"contract"}})
def _log(x: Any) -> Callable[[Any], Any]:
    return _log_single if x == numba.float32 else _log_double


def _exp_single(x: Any) -> Any:
    """``2^n e^r`` with ``x = n ln 2 + r``, the series of e^r fitted to [-ln 2 / 2, ln 2 / 2] (Cephes, expf)."""
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    s = np.float32(1.9875691500e-4)
    s = s * r + np.float32(1.3981999507e-3)
    s = s * r + np.float32(8.3334519073e-3)
    s = s * r + np.float32(4.1665795894e-2)
    s = s * r + np.float32(1.6666665459e-1)
    s = s * r + np.float32(5.0000001201e-1)
    power = np.int32((np.float32(shifted).view(np.int32) << 23) + 0x3F800000).view(np.float32)  # 2^n; wraps
    inside = (s * (r * r) + r + np.float32(1)) * power
    # comparisons are false for NaN, which goes on
    return np.float32(0) if x < _LEAST else np.float32(np.inf) if x > _MOST else inside


def _log_single(x: Any) -> Any:
    """``n ln 2 + ln m`` with ``x = 2^n m``, m in [sqrt(1/2), sqrt(2)) (Cephes, logf)."""
    bits = np.int32(np.float32(x).view(np.int32) - 0x3F3504F3)
    n = np.float32(np.int32(bits >> 23))
    m = np.int32((bits & 0x007FFFFF) + 0x3F3504F3).view(np.float32) - np.float32(1)
    s = np.float32(7.0376836292e-2)
    s = s * m + np.float32(-1.1514610310e-1)
    s = s * m + np.float32(1.1676998740e-1)
    s = s * m + np.float32(-1.2420140846e-1)
    s = s * m + np.float32(1.4249322787e-1)
    s = s * m + np.float32(-1.6668057665e-1)
    s = s * m + np.float32(2.0000714765e-1)
    s = s * m + np.float32(-2.4999993993e-1)
    s = s * m + np.float32(3.3333331174e-1)
    square = m * m
    s = s * m * square + n * _LN2_LOW - np.float32(0.5) * square
    inside = (m + s) + n * _LN2_HIGH
    return x if x != x else inside


def _exp_double(x: Any) -> Any:
    return math.exp(x)


def _log_double(x: Any) -> Any:
    return math.log(x)
