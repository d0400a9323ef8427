# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Soft-target KL on GPUs: several rows per program, student and target read once, gradients written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import MAX_TILE, accumulation_dtype, padded
from gkdkernels.core.row_tiles_triton import on_device

_PER_THREAD = 8  # elements of the tile [BLOCK_N, BLOCK_C]


@triton.jit
def _log_sigmoid(z):
    return tl.minimum(z, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(z)))


@triton.jit
def _log_softmax(z, there):
    shifted = z - tl.max(tl.where(there, z, float("-inf")), 1)[:, None]
    return shifted - tl.log(tl.sum(tl.where(there, tl.exp(shifted), 0.0), 1))[:, None]


@triton.jit
def _settled(gap, p):
    """`gap`, 0 where it is infinite or NaN and p is 0: ``0 log 0 = 0``."""
    return tl.where((p == 0.0) & ((gap != gap) | (tl.abs(gap) == float("inf"))), 0.0, gap)


# forward forms the gradients too: there is no backward kernel
@triton.jit
def soft_kl_fwd_row_tile(
    student,  # [N, C] logits
    target,  # [N, C] as KIND states
    mask,  # [N] 0 or 1, or None
    kl,  # [N]
    to_student,  # [N, C], or None
    to_target,  # [N, C], or None
    num_rows,
    stride_sn,
    stride_sc,
    stride_tn,
    stride_tc,
    KIND: tl.constexpr,
    MULTI_LABEL: tl.constexpr,
    TAU: tl.constexpr,
    TINY: tl.constexpr,
    LEAST: tl.constexpr,
    C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """KL and gradients of BLOCK_N rows."""
    dtype: tl.constexpr = kl.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_C)
    in_rows, there = row < num_rows, (column < C)[None, :]
    counts = in_rows
    if mask is not None:
        counts = in_rows & (tl.load(mask + row, mask=in_rows, other=0) != 0)
    inside = in_rows[:, None] & there  # [BLOCK_N, BLOCK_C]
    live = counts[:, None] & there
    scale: tl.constexpr = 1.0 / TAU  # not an argument: those are fp32
    z = tl.load(student + row[:, None] * stride_sn + column[None, :] * stride_sc, mask=live, other=0.0)
    t = tl.load(target + row[:, None] * stride_tn + column[None, :] * stride_tc, mask=live, other=0.0)
    z, t = z.to(dtype) * scale, t.to(dtype)
    if MULTI_LABEL:
        log_q, log_nq = _log_sigmoid(z), _log_sigmoid(-z)
        if KIND == "Probs":
            p, np = t, 1.0 - t
            log_p, log_np = tl.log(tl.maximum(p, TINY)), tl.log(tl.maximum(np, TINY))
        else:
            log_p, log_np = _log_sigmoid(t * scale), _log_sigmoid(-t * scale)
            p, np = tl.exp(log_p), tl.exp(log_np)
        gap, ngap = _settled(log_p - log_q, p), _settled(log_np - log_nq, np)
        rows = tl.sum(tl.where(live, p * gap + np * ngap, 0.0), 1) / C
        pull = (tl.exp(log_q) - p) * scale / C
        if KIND == "Probs":
            push = (gap + (p >= TINY).to(dtype) - ngap - (np >= TINY).to(dtype)) / C
        else:
            push = p * np * (gap - ngap) * scale / C
    else:
        log_q = _log_softmax(z, there)
        if KIND == "Probs":
            p = t
            log_p = tl.log(tl.maximum(p, TINY))
        elif KIND == "LogProbs":
            log_p = tl.maximum(t, LEAST)
            p = tl.where(live, tl.exp(t), 0.0)
        else:
            log_p = _log_softmax(t * scale, there)
            p = tl.where(live, tl.exp(log_p), 0.0)
        gap = tl.where(live, _settled(log_p - log_q, p), 0.0)
        rows = tl.sum(p * gap, 1)
        q = tl.exp(log_q)
        if KIND != "Logits":
            q *= tl.sum(p, 1)[:, None]
        pull = (q - p) * scale
        if KIND == "Probs":
            push = gap + (p >= TINY).to(dtype)
        elif KIND == "LogProbs":
            push = p * (gap + 1.0)
        else:
            push = p * (gap - rows[:, None]) * scale
    tl.store(kl + row, rows, mask=in_rows)
    at = row[:, None] * C + column[None, :]
    if to_student is not None:
        tl.store(to_student + at, tl.where(live, pull, 0.0).to(to_student.dtype.element_ty), mask=inside)
    if to_target is not None:
        tl.store(to_target + at, tl.where(live, push, 0.0).to(to_target.dtype.element_ty), mask=inside)


def rows_of(classes: int) -> tuple[int, int, int]:
    """BLOCK_N, BLOCK_C and warps: many rows in one warp while the classes are few.

    Raises:
        ValueError: the classes do not fit one program.
    """
    block_c = padded(classes)
    if block_c > MAX_TILE:
        raise ValueError(
            f"backend 'triton' of soft_kl: expected at most {MAX_TILE} classes, got {classes}; "
            "backend='reference' has no limit"
        )
    warp = 32 * _PER_THREAD
    return max(1, warp // block_c), block_c, min(16, max(1, block_c // warp))


def row_kl_triton(
    student: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kind: str,
    tau: float,
    multi_label: bool,
    learns: bool,
    teaches: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `row_kl` of the module `soft_kl`."""
    wide = accumulation_dtype(student.dtype)
    rows, classes = student.shape
    kl = student.new_empty(rows, dtype=wide)
    to_student = student.new_empty(rows if learns else 0, classes)
    to_target = value.new_empty(rows if teaches else 0, classes)
    if rows * classes == 0:
        return kl.zero_(), to_student, to_target
    block_n, block_c, num_warps = rows_of(classes)
    with on_device(student):
        soft_kl_fwd_row_tile[(triton.cdiv(rows, block_n),)](
            student,
            value,
            None if mask is None else mask.contiguous().view(torch.uint8),
            kl,
            to_student if learns else None,
            to_target if teaches else None,
            rows,
            *student.stride(),
            *value.stride(),
            KIND=kind,
            MULTI_LABEL=multi_label,
            TAU=tau,
            TINY=torch.finfo(wide).tiny,
            LEAST=torch.finfo(wide).min,
            C=classes,
            BLOCK_N=block_n,
            BLOCK_C=block_c,
            num_warps=num_warps,
        )
    return kl, to_student, to_target
