# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Mutual KL on GPUs: one program holds all peers of a few nodes, reads their logits once, writes their gradient once.

The tile is [BLOCK_K, BLOCK_N, BLOCK_C], laid out so that one thread holds every peer of its classes: a sum over peers
stays in registers, a sum over classes is a shuffle within a warp. The loop over teachers is rolled: unrolled, eight
peers compile for minutes and spill. Programs write partial sums, which are added in a fixed order: no atomics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from gkdkernels.core.dispatch import MAX_TILE, padded
from gkdkernels.core.indices import flag_for
from gkdkernels.core.row_tiles_triton import on_device

_LEAST = -1e37  # for a logarithm of 0: differences and sums over peers stay finite in fp32
_PER_THREAD = 16  # elements of the tile at most: five arrays of it are alive at once, seven with several labels


@triton.jit
def _load_peers(
    logits,
    row,
    column,
    live,
    stride_n,
    stride_c,
    PACKED: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    dtype: tl.constexpr,
):
    """[BLOCK_K, BLOCK_N, BLOCK_C] the logits of every peer, from a tuple of K pointers; 0 outside."""
    if PACKED:  # a stride known when compiling allows 128-bit loads
        stride_n = C
        stride_c = 1
    at = row[:, None] * stride_n + column.to(tl.int64)[None, :] * stride_c  # [BLOCK_N, BLOCK_C]
    k = tl.arange(0, BLOCK_K)[:, None, None]
    z = tl.zeros((BLOCK_K, at.shape[0], at.shape[1]), dtype)
    for peer in tl.static_range(K):
        own = tl.load(logits[peer] + at, mask=live, other=0.0).to(dtype)
        z = tl.where(k == peer, own[None], z)
    return z


@triton.jit
def _log_softmax(z, there):
    """Log-probabilities and probabilities of [BLOCK_K, BLOCK_N, BLOCK_C] over the last axis; 0 where not `there`."""
    shifted = z - tl.max(tl.where(there, z, float("-inf")), 2)[:, :, None]
    e = tl.where(there, tl.exp(shifted), 0.0)
    total = tl.sum(e, 2)[:, :, None]
    return tl.where(there, shifted - tl.log(total), 0.0), e / total


@triton.jit
def _log_sigmoid(z):
    return tl.minimum(z, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(z)))


@triton.jit
def _finite(log_p, LEAST: tl.constexpr):
    """`log_p` with LEAST for -inf, whose product with a probability of 0 is 0 and not NaN; NaN stays."""
    return tl.where(log_p == float("-inf"), LEAST, log_p)


@triton.jit
def mutual_kl_fwd_peer_tile(
    logits,  # K tensors [N, C]
    weight,  # w_ij of node n at n stride_wn + i stride_wi + j stride_wj, or None
    kl_mask,  # [N] 0 or 1, or None
    targets,  # [N] classes, or [N, C] labels, or None
    out_of_range,  # [1] set to 1 where a class is not below C, or None
    entropy_mask,  # [N] 0 or 1, or None
    scale,  # [3] of one row in KL, cross-entropy, entropy
    grad,  # [K, N, C], or None
    node_kl,  # [N, K, K], or None
    kl_part,  # [programs, K, K]
    loss_part,  # [programs, K]
    num_rows,
    stride_n,
    stride_c,
    stride_wn,
    stride_wi,
    stride_wj,
    ENTROPY: tl.constexpr,
    MULTI_LABEL: tl.constexpr,
    LEAST: tl.constexpr,
    PACKED: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Loss, KL and gradient of BLOCK_N nodes."""
    dtype: tl.constexpr = scale.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    row = program * BLOCK_N + tl.arange(0, BLOCK_N)
    column, k = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_K)
    in_rows, in_peers = row < num_rows, k < K
    live = in_rows[:, None] & (column < C)[None, :]  # [BLOCK_N, BLOCK_C]
    there = (column < C)[None, None, :]
    z = _load_peers(logits, row, column, live, stride_n, stride_c, PACKED, K, C, BLOCK_K, dtype)
    if MULTI_LABEL:
        log_p = tl.where(there, _finite(_log_sigmoid(z), LEAST), 0.0)
        log_q = tl.where(there, _finite(_log_sigmoid(-z), LEAST), 0.0)
        p = tl.where(there, tl.exp(log_p), 0.0)
    else:
        log_p, p = _log_softmax(z, there)
        log_p = _finite(log_p, LEAST)
        log_q = log_p
    valid = in_peers[:, None] & in_rows[None, :]  # [BLOCK_K, BLOCK_N]
    of_ce, of_entropy = tl.load(scale + 1), tl.load(scale + 2)
    loss = tl.zeros((BLOCK_K, BLOCK_N), dtype)
    g = tl.zeros((BLOCK_K, BLOCK_N, BLOCK_C), dtype)
    if weight is not None:
        of_kl = tl.where(in_rows, tl.load(scale), 0.0)  # [BLOCK_N]
        counted = valid
        if kl_mask is not None:
            counted = valid & (tl.load(kl_mask + row, mask=in_rows, other=0) != 0)[None, :]
        taught = tl.zeros((BLOCK_K, BLOCK_N), dtype)
        for i in range(K):
            teacher = (k == i)[:, None, None]
            p_i = tl.sum(tl.where(teacher, p, 0.0), 0)[None]  # [1, BLOCK_N, BLOCK_C]
            log_p_i = tl.sum(tl.where(teacher, log_p, 0.0), 0)[None]
            inside = p_i * (log_p_i - log_p)
            if MULTI_LABEL:
                inside += tl.where(there, 1.0 - p_i, 0.0) * (tl.sum(tl.where(teacher, log_q, 0.0), 0)[None] - log_q)
            kl = tl.where(counted, tl.sum(inside, 2) * of_kl[None, :], 0.0)  # [BLOCK_K, BLOCK_N] teacher i, learner k
            at = row[None, :] * stride_wn + i * stride_wi + k[:, None] * stride_wj
            w = tl.load(weight + at, mask=counted & (k != i)[:, None], other=0.0)
            loss += w * kl
            w *= of_kl[None, :]
            taught += w
            g -= w[:, :, None] * p_i
            tl.store(kl_part + (program * K + i) * K + k, tl.sum(kl, 1), mask=in_peers)
            if node_kl is not None:
                tl.store(node_kl + (row[None, :] * K + i) * K + k[:, None], kl, mask=valid)
        g += taught[:, :, None] * p
        if kl_mask is not None:
            g = tl.where(counted[:, :, None], g, 0.0)  # 0 times NaN is NaN
    if targets is not None:
        if MULTI_LABEL:
            y = tl.load(targets + row[:, None] * C + column[None, :], mask=live, other=float("nan")).to(dtype)
            known = (y == y)[None]
            y = tl.where(y == y, y, 0.0)[None]
            loss -= of_ce * tl.sum(tl.where(known, y * log_p + (1.0 - y) * log_q, 0.0), 2)
            g += of_ce * tl.where(known, p - y, 0.0)
        else:
            label = tl.load(targets + row, mask=in_rows, other=-1)
            tl.store(out_of_range + label * 0, 1, mask=label >= C)
            hit = (column[None, :] == label[:, None])[None]
            known = ((label >= 0) & (label < C))[None, :]  # [1, BLOCK_N]
            loss -= of_ce * tl.where(known, tl.sum(tl.where(hit, log_p, 0.0), 2), 0.0)
            g += of_ce * tl.where(known[:, :, None], p - tl.where(hit, 1.0, 0.0), 0.0)
    if ENTROPY:
        counts = in_rows[None, :]
        if entropy_mask is not None:
            counts = counts & (tl.load(entropy_mask + row, mask=in_rows, other=0) != 0)[None, :]
        if MULTI_LABEL:
            q = tl.where(there, 1.0 - p, 0.0)
            inner = tl.sum(p * log_p + q * log_q, 2)
            slope = p * q * (log_p - log_q)
        else:
            inner = tl.sum(p * log_p, 2)
            slope = p * (log_p - inner[:, :, None])
        loss += of_entropy * tl.where(counts, inner, 0.0)
        g += of_entropy * tl.where(counts[:, :, None], slope, 0.0)
    tl.store(loss_part + program * K + k, tl.sum(tl.where(valid, loss, 0.0), 1), mask=in_peers)
    if grad is not None:
        at = (k.to(tl.int64)[:, None] * num_rows + row[None, :]) * C  # [BLOCK_K, BLOCK_N]
        tl.store(
            grad + at[:, :, None] + column[None, None, :],
            g.to(grad.dtype.element_ty),
            mask=live[None] & in_peers[:, None, None],
        )


@triton.jit
def mutual_kl_bwd_teacher_tile(
    logits,  # K tensors [N, C]
    weight,  # as `mutual_kl_fwd_peer_tile`
    g,  # [K] upstream of the losses
    kl_mask,  # [N] 0 or 1, or None
    scale,  # [3]
    grad,  # [K, N, C]
    num_rows,
    stride_n,
    stride_c,
    stride_wn,
    stride_wi,
    stride_wj,
    MULTI_LABEL: tl.constexpr,
    LEAST: tl.constexpr,
    PACKED: tl.constexpr,
    K: tl.constexpr,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``J_i sum_j g_j w_ij (log p_i - log p_j)`` of BLOCK_N nodes, for every teacher i."""
    dtype: tl.constexpr = scale.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column, k = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_K)
    in_rows, in_peers = row < num_rows, k < K
    live = in_rows[:, None] & (column < C)[None, :]
    there = (column < C)[None, None, :]
    natural = _load_peers(logits, row, column, live, stride_n, stride_c, PACKED, K, C, BLOCK_K, dtype)
    if MULTI_LABEL:
        p = 1.0 / (1.0 + tl.exp(-natural))
        natural = tl.where(natural == float("inf"), -LEAST, natural)
    else:
        natural, p = _log_softmax(natural, there)
    natural = _finite(natural, LEAST)
    counted = in_rows
    if kl_mask is not None:
        counted = in_rows & (tl.load(kl_mask + row, mask=in_rows, other=0) != 0)
    pull = tl.zeros((BLOCK_K, BLOCK_N, BLOCK_C), dtype)
    for j in range(K):
        at = row[None, :] * stride_wn + k[:, None] * stride_wi + j * stride_wj
        w = tl.load(weight + at, mask=(in_peers & (k != j))[:, None] & counted[None, :], other=0.0) * tl.load(g + j)
        learner = tl.sum(tl.where((k == j)[:, None, None], natural, 0.0), 0)[None]
        pull += w[:, :, None] * (natural - learner)
    side = p * (1.0 - p) * pull if MULTI_LABEL else p * (pull - tl.sum(p * pull, 2)[:, :, None])
    side *= tl.load(scale)
    if kl_mask is not None:
        side = tl.where(counted[None, :, None], side, 0.0)
    at = (k.to(tl.int64)[:, None] * num_rows + row[None, :]) * C
    tl.store(
        grad + at[:, :, None] + column[None, None, :],
        side.to(grad.dtype.element_ty),
        mask=live[None] & in_peers[:, None, None],
    )


class PeerTile(NamedTuple):
    """How a program of K peers and C classes is cut."""

    block_k: int
    block_n: int
    block_c: int
    num_warps: int


def tile_of(peers: int, classes: int, multi_label: bool = False) -> PeerTile:
    """Many nodes in one warp while the classes are few, more warps once one node fills it.

    A thread holds all peers of at most four places.

    Raises:
        ValueError: the classes of all peers do not fit one program.
    """
    block_k, block_c = padded(peers), padded(classes)
    if block_k * block_c > MAX_TILE:
        raise ValueError(
            f"backend 'triton' of mutual_kl: expected K x C of at most {MAX_TILE} (each rounded up to a power of 2), "
            f"got {peers} x {classes}; backend='reference' has no limit"
        )
    per_thread = min(_PER_THREAD // 2 if multi_label else _PER_THREAD, 4 * block_k)
    warp = 32 * per_thread
    return PeerTile(block_k, max(1, warp // (block_k * block_c)), block_c, min(16, max(1, block_k * block_c // warp)))


class _Common(NamedTuple):
    grid: int
    logits: tuple[Tensor, ...]
    strides: tuple[int, ...]
    weight_strides: tuple[int, ...]
    constants: dict[str, Any]


def _common(logits: list[Tensor], weight: Tensor | None, multi_label: bool) -> _Common:
    peers, (rows, classes) = len(logits), logits[0].shape
    tile = tile_of(peers, classes, multi_label)
    strides = logits[0].stride()
    if any(z.stride() != strides for z in logits):  # one pair of strides serves all
        logits = [z.contiguous() for z in logits]
        strides = logits[0].stride()
    weight_strides: tuple[int, ...] = (0, 0, 0)
    if weight is not None:
        weight_strides = (0, *weight.stride()) if weight.dim() == 2 else (weight.stride(0), weight.stride(1), 0)
    constants = {
        "MULTI_LABEL": multi_label,
        "LEAST": _LEAST,
        "PACKED": strides == (classes, 1),
        "K": peers,
        "C": classes,
        "BLOCK_K": tile.block_k,
        "BLOCK_N": tile.block_n,
        "BLOCK_C": tile.block_c,
        "num_warps": tile.num_warps,
    }
    return _Common(triton.cdiv(rows, tile.block_n), tuple(logits), strides, weight_strides, constants)


def peer_pass_triton(
    logits: list[Tensor],
    weight: Tensor | None,
    kl_mask: Tensor | None,
    targets: Tensor | None,
    entropy_mask: Tensor | None,
    scale: Tensor,
    entropy: bool,
    multi_label: bool,
    learns: bool,
    per_node: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `peer_pass` of the module `mutual_kl`."""
    peers, (rows, classes) = len(logits), logits[0].shape
    common = _common(logits, weight, multi_label)
    grad = logits[0].new_empty((peers, rows, classes) if learns else 0)
    node_kl = scale.new_empty((rows, peers, peers) if per_node else 0)
    if rows * classes == 0:
        return scale.new_zeros(peers), scale.new_zeros(peers, peers), grad, node_kl.zero_()
    kl_part = scale.new_empty((common.grid, peers, peers) if weight is not None else (0, peers, peers))
    loss_part = scale.new_empty(common.grid, peers)
    with on_device(logits[0]):
        mutual_kl_fwd_peer_tile[(common.grid,)](
            common.logits,
            weight,
            _as_bytes(kl_mask),
            None if targets is None else targets.contiguous(),
            flag_for("targets", targets) if targets is not None and not multi_label else None,
            _as_bytes(entropy_mask),
            scale,
            grad if learns else None,
            node_kl if per_node else None,
            kl_part,
            loss_part,
            rows,
            *common.strides,
            *common.weight_strides,
            ENTROPY=entropy,
            **common.constants,
        )
    loss, kl = (part.sum(0, dtype=torch.float64).to(scale.dtype) for part in (loss_part, kl_part))
    return loss, kl, grad, node_kl


def teacher_side_triton(
    logits: list[Tensor], weight: Tensor, g: Tensor, kl_mask: Tensor | None, scale: Tensor, multi_label: bool
) -> Tensor:
    """As `teacher_side` of the module `mutual_kl`."""
    common = _common(logits, weight, multi_label)
    grad = logits[0].new_empty(len(logits), *logits[0].shape)
    if grad.numel():
        with on_device(grad):
            mutual_kl_bwd_teacher_tile[(common.grid,)](
                common.logits,
                weight,
                g,
                _as_bytes(kl_mask),
                scale,
                grad,
                logits[0].size(0),
                *common.strides,
                *common.weight_strides,
                **common.constants,
            )
    return grad


def _as_bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous().view(torch.uint8)
