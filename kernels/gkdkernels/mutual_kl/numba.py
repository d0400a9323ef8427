"""`mutual_kl` on the CPU as compiled loops: one pass over the nodes, shared out among threads (extra `numba`).

Vectors run over nodes, not classes: a tile is [C, 64 nodes] per peer, so that nothing is summed across a vector and no
number of classes leaves a rest. A tile of all peers stays in the second-level cache from the logits to the gradient.

    KL_ij = sum_c p_i (log p_i - log p_j)    taken as it stands: identical peers give exactly 0

Sums run in fp32 within a tile and in fp64 from there on, in the order of the nodes, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.numba_tools import FAST_SUMS, exp, log, loops, part, pointer, run
from gkdkernels.mutual_kl.cpu import peer_pass_cpu, teacher_side_cpu

_LANES = 64  # nodes of a tile; with fewer, LLVM takes the loops over them for too short to be vectorised
_TILES = 4  # that a thread takes at a time


def peer_pass_numba(
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
    """As `peer_pass` of the module `mutual_kl`. Half precision is raised to fp32 beforehand.

    The loops multiply masks and logarithms as they stand: where that is not finite, by a class that is impossible or a
    row that is NaN, `peer_pass_cpu` does the work, which looks at what counts.
    """
    peers, (rows, classes), empty = len(logits), logits[0].shape, scale.new_empty
    grad = empty((peers, rows, classes) if learns else (0, 0, 0))
    node_kl = empty((rows, peers, peers) if per_node else (0, 0, 0)).zero_()
    pairs = mix = empty(0, 0)
    taught = empty(0, 0)
    if weight is not None and weight.dim() == 2:
        pairs = weight.detach().clone().fill_diagonal_(0)
        mix = scale[0] * (pairs.sum(0).diag() - pairs).t()  # [K, K], d loss / d z = mix @ p
    elif weight is not None:
        taught = scale[0] * weight.detach()[..., 0]  # [N, K]
    label, share = torch.empty(0, dtype=torch.int64), empty(0, 0)
    if targets is not None and targets.is_floating_point():
        share = targets.to(scale.dtype)
    elif targets is not None:
        label = targets.long()
    chunks = -(-rows // (_LANES * _TILES)) if classes else 0
    loss = torch.zeros(chunks, peers, dtype=torch.float64)
    kl = torch.zeros(chunks, peers, peers, dtype=torch.float64)
    wide = [z.detach().to(scale.dtype) for z in logits]
    run(
        mutual_kl_fwd_peer_pass,
        *_addresses(wide),
        mix.contiguous(),
        taught.contiguous(),
        _rows_of(kl_mask),
        label.contiguous(),
        share.contiguous(),
        entropy,
        _rows_of(entropy_mask),
        scale,
        multi_label,
        grad,
        node_kl,
        loss,
        kl,
        (rows, classes),
    )
    total = loss.sum(0)
    mean = kl.sum(0) * scale[0].double()
    if pairs.numel():
        total += (pairs * mean).sum(0)
    if not bool(total.isfinite().all() & mean.isfinite().all()):
        asked = (weight, kl_mask, targets, entropy_mask, scale, entropy, multi_label, learns, per_node)
        return peer_pass_cpu(logits, *asked)
    return total.to(scale.dtype), mean.to(scale.dtype), grad.to(logits[0].dtype) if learns else grad, node_kl


def teacher_side_numba(
    logits: list[Tensor], weight: Tensor, g: Tensor, kl_mask: Tensor | None, scale: Tensor, multi_label: bool
) -> Tensor:
    """As `teacher_side` of the module `mutual_kl`."""
    peers, (rows, classes) = len(logits), logits[0].shape
    grad = scale.new_empty(peers, rows, classes)
    taught = scale.new_empty(0, 0)
    if weight.dim() == 2:
        pairs = (weight.detach() * (scale[0] * g)).fill_diagonal_(0)
        mix = pairs.sum(1).diag() - pairs  # [K, K]
    else:
        taught = weight.detach()[..., 0]
        mix = scale[0] * (g.sum().expand(peers).diag() - g)
    wide = [z.detach().to(scale.dtype) for z in logits]
    run(
        mutual_kl_bwd_teacher_side,
        *_addresses(wide),
        mix.contiguous(),
        taught.contiguous(),
        _rows_of(kl_mask),
        multi_label,
        grad,
    )
    if not bool(grad.sum().isfinite()):
        return teacher_side_cpu(logits, weight, g, kl_mask, scale, multi_label)
    return grad.to(logits[0].dtype)


def _addresses(logits: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """[K] where each tensor begins, [K, 2] its strides in elements."""
    return np.array([z.data_ptr() for z in logits]), np.array([z.stride() for z in logits])


def _rows_of(mask: Tensor | None) -> Tensor:
    """[N], or [0] for all nodes."""
    return torch.empty(0, dtype=torch.bool) if mask is None else mask.contiguous()


@loops(FAST_SUMS)
def mutual_kl_fwd_peer_pass(
    address: Any,
    stride: Any,
    mix: Any,
    taught: Any,
    kl_mask: Any,
    label: Any,
    share: Any,
    entropy: bool,
    entropy_mask: Any,
    scale: Any,
    multi_label: bool,
    grad: Any,
    node_kl: Any,
    loss: Any,
    kl: Any,
    size: tuple[int, int],
) -> None:
    rows, classes = size
    peers, sides = address.size, 2 if multi_label else 1
    learns, teaches = grad.size > 0, mix.size + taught.size > 0
    for chunk in numba.prange(loss.shape[0]):
        log_p = np.empty((sides, peers, classes, _LANES), grad.dtype)
        p, g = np.empty_like(log_p), np.empty((classes, _LANES), grad.dtype)
        common, lane, live = np.empty_like(g), np.empty((peers, _LANES), grad.dtype), np.empty(_LANES, grad.dtype)
        flat = (peers, classes * _LANES)
        for tile in range(chunk * _TILES, (chunk + 1) * _TILES):
            first = tile * _LANES
            count = min(_LANES, rows - first)
            if count <= 0:
                break
            _probabilities(address, stride, first, count, rows, log_p, p, lane)
            _alive(kl_mask, first, count, live)
            if taught.size:
                _node_weights(taught, first, count, live, lane)
            if taught.size and learns:
                _taught_by_all(p[0], lane, common)
            for j in range(peers):
                if learns and mix.size:
                    _mixed(p[0].reshape(flat), mix[j], g.reshape(classes * _LANES))
                    if kl_mask.size:
                        _by_lane(g, live)
                elif learns and taught.size:
                    _taught_by_node(p[0, j], lane, common, g)
                elif learns:
                    g[:] = 0
                if label.size:
                    loss[chunk, j] += _cross_entropy(log_p[0, j], p[0, j], label, first, count, scale[1], learns, g)
                if share.size:
                    loss[chunk, j] += _binary_cross_entropy(
                        log_p[:, j], p[0, j], share, first, count, scale[1], learns, g
                    )
                if entropy:
                    loss[chunk, j] -= _entropy(log_p[:, j], p[:, j], entropy_mask, first, count, scale[2], learns, g)
                if learns:
                    _store(g, grad[j], first, count)
            if taught.size:
                _node_pairs(log_p, p, lane, live, first, count, scale[0], loss[chunk], kl[chunk], node_kl)
            elif teaches:
                for side in range(sides):
                    if kl_mask.size or count < _LANES:
                        for k in range(peers):
                            _by_lane(p[side, k], live)
                    _pairs(log_p[side].reshape(flat), p[side].reshape(flat), kl[chunk])


@loops(FAST_SUMS)
def mutual_kl_bwd_teacher_side(
    address: Any, stride: Any, mix: Any, taught: Any, kl_mask: Any, multi_label: bool, grad: Any
) -> None:
    peers, rows, classes = grad.shape
    sides = 2 if multi_label else 1
    for tile in numba.prange((rows + _LANES - 1) // _LANES if classes else 0):
        log_p = np.empty((sides, peers, classes, _LANES), grad.dtype)
        p, pull = np.empty_like(log_p), np.empty((classes, _LANES), grad.dtype)
        lane, live = np.empty((peers, _LANES), grad.dtype), np.empty(_LANES, grad.dtype)
        first = tile * _LANES
        count = min(_LANES, rows - first)
        _probabilities(address, stride, first, count, rows, log_p, p, lane)
        _alive(kl_mask, first, count, live)
        flat = (peers, classes * _LANES)
        natural = log_p[0].reshape(flat)
        if multi_label:
            natural -= log_p[1].reshape(flat)
        if taught.size:
            _node_weights(taught, first, count, live, lane)
        for i in range(peers):
            _mixed(natural, mix[i], pull.reshape(classes * _LANES))  # sum_j g_j w_ij (log p_i - log p_j)
            if multi_label:
                pull *= p[0, i] * p[1, i]
            else:
                _through_softmax(p[0, i], pull)
            if taught.size:
                _by_lane(pull, lane[i])
            elif kl_mask.size:
                _by_lane(pull, live)
            _store(pull, grad[i], first, count)


@part(FAST_SUMS)
def _probabilities(address: Any, stride: Any, first: int, count: int, rows: int, log_p: Any, p: Any, lane: Any) -> None:
    """[S, K, C, 64] log-probabilities and probabilities of a tile: softmax, or each label being there and not."""
    sides, peers, classes, _ = log_p.shape
    for k in range(peers):
        along, across = stride[k]
        z = numba.carray(pointer(address[k]), (rows * along + classes * across + 1,), log_p.dtype)
        _load(z, along, across, first, count, log_p[0, k])
        if sides == 2:
            _log_sigmoids(log_p[0, k], log_p[1, k])
        else:
            _centre(log_p[0, k], lane[k])
        for side in range(sides):
            _exponentials(log_p[side, k].reshape(classes * _LANES), p[side, k].reshape(classes * _LANES))
        if sides == 1:
            _normalise(log_p[0, k], p[0, k], lane[k])


@part()
def _load(z: Any, along: int, across: int, first: int, count: int, out: Any) -> None:
    """Turns [64, C] into [C, 64]; lanes without a node hold zeros."""
    if count < _LANES:
        out[:] = 0
    if count == _LANES and across == 1:
        for c in range(out.shape[0]):
            for r in range(_LANES):
                out[c, r] = z[(first + r) * along + c]
    else:
        for c in range(out.shape[0]):
            for r in range(count):
                out[c, r] = z[(first + r) * along + c * across]


@part()
def _store(tile: Any, out: Any, first: int, count: int) -> None:
    """Turns [C, 64] into [64, C]."""
    for r in range(count):
        row = out[first + r]
        for c in range(tile.shape[0]):
            row[c] = tile[c, r]


@part(FAST_SUMS)
def _centre(z: Any, lane: Any) -> None:
    """Takes off each node's largest logit."""
    for r in range(_LANES):
        lane[r] = z[0, r]
    for c in range(1, z.shape[0]):
        for r in range(_LANES):
            lane[r] = z[c, r] if z[c, r] > lane[r] else lane[r]
    for c in range(z.shape[0]):
        for r in range(_LANES):
            z[c, r] -= lane[r]


@part()
def _exponentials(x: Any, out: Any) -> None:
    for q in range(x.size):
        out[q] = exp(x[q])


@part(FAST_SUMS)
def _normalise(log_p: Any, p: Any, lane: Any) -> None:
    """Divides by each node's sum."""
    for r in range(_LANES):
        lane[r] = p[0, r]
    for c in range(1, p.shape[0]):
        for r in range(_LANES):
            lane[r] += p[c, r]
    for c in range(p.shape[0]):
        for r in range(_LANES):
            p[c, r] /= lane[r]
    for r in range(_LANES):
        lane[r] = log(lane[r])
    for c in range(p.shape[0]):
        for r in range(_LANES):
            log_p[c, r] -= lane[r]


@part()
def _log_sigmoids(there: Any, absent: Any) -> None:
    """``log sigmoid(z)`` in place of z, and ``log sigmoid(-z)``."""
    zero, one = there.dtype.type(0), there.dtype.type(1)
    for c in range(there.shape[0]):
        for r in range(_LANES):
            z = there[c, r]
            small = exp(-abs(z))
            whole = one + small
            rest = log(whole) + (small - (whole - one)) / whole  # log1p: what rounding took from the sum comes back
            there[c, r] = (z if z < zero else zero) - rest
            absent[c, r] = (-z if z > zero else zero) - rest


@part()
def _alive(mask: Any, first: int, count: int, live: Any) -> None:
    """[64] 1 for the nodes that count, 0 for others and for lanes without one."""
    for r in range(_LANES):
        live[r] = r < count
    if mask.size:
        for r in range(count):
            live[r] = mask[first + r]


@part()
def _by_lane(tile: Any, lane: Any) -> None:
    for c in range(tile.shape[0]):
        for r in range(_LANES):
            tile[c, r] *= lane[r]


@part(FAST_SUMS)
def _mixed(x: Any, weight: Any, out: Any) -> None:
    """``sum_i weight_i x_i`` of ``x: [K, T]``: eight at a time, then four, then one."""
    peers, width = x.shape
    done = 0
    if peers < 8:
        out[:] = 0
    else:
        x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
        w0, w1, w2, w3 = weight[0], weight[1], weight[2], weight[3]
        w4, w5, w6, w7 = weight[4], weight[5], weight[6], weight[7]
        for q in range(width):
            first = w0 * x0[q] + w1 * x1[q] + w2 * x2[q] + w3 * x3[q]
            out[q] = first + (w4 * x4[q] + w5 * x5[q] + w6 * x6[q] + w7 * x7[q])
        done = 8
    fours = peers - (peers - done) % 4
    for i in range(done, fours, 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for q in range(width):
            out[q] += w0 * x0[q] + w1 * x1[q] + w2 * x2[q] + w3 * x3[q]
    for i in range(fours, peers):
        x0, w0 = x[i], weight[i]
        for q in range(width):
            out[q] += w0 * x0[q]


@part(FAST_SUMS)
def _pairs(log_p: Any, p: Any, kl: Any) -> None:
    """Adds ``KL_ij`` and ``KL_ji`` of a tile, ``p: [K, T]``: one peer and four others at a time.

    Both need ``d = log p_i - log p_j`` alone: ``KL_ij = sum p_i d`` and ``KL_ji = - sum p_j d``.
    """
    peers, width = p.shape
    zero = p.dtype.type(0)
    for i in range(peers - 1):
        own, mine = log_p[i], p[i]
        fours = i + 1 + (peers - 1 - i) % 4
        for j in range(i + 1, fours):
            l0, p0 = log_p[j], p[j]
            a0 = b0 = zero
            for q in range(width):
                d0 = own[q] - l0[q]
                a0 += mine[q] * d0
                b0 += p0[q] * d0
            kl[i, j] += a0
            kl[j, i] -= b0
        for j in range(fours, peers, 4):
            l0, l1, l2, l3 = log_p[j], log_p[j + 1], log_p[j + 2], log_p[j + 3]
            p0, p1, p2, p3 = p[j], p[j + 1], p[j + 2], p[j + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
            for q in range(width):
                o, m = own[q], mine[q]
                d0, d1, d2, d3 = o - l0[q], o - l1[q], o - l2[q], o - l3[q]
                a0 += m * d0
                a1 += m * d1
                a2 += m * d2
                a3 += m * d3
                b0 += p0[q] * d0
                b1 += p1[q] * d1
                b2 += p2[q] * d2
                b3 += p3[q] * d3
            kl[i, j] += a0
            kl[i, j + 1] += a1
            kl[i, j + 2] += a2
            kl[i, j + 3] += a3
            kl[j, i] -= b0
            kl[j + 1, i] -= b1
            kl[j + 2, i] -= b2
            kl[j + 3, i] -= b3


@part()
def _node_weights(taught: Any, first: int, count: int, live: Any, lane: Any) -> None:
    """[K, 64] the weight of each teacher for each node of the tile, 0 where it does not count."""
    lane[:] = 0
    for r in range(count):
        for i in range(lane.shape[0]):
            lane[i, r] = taught[first + r, i] * live[r]


@part(FAST_SUMS)
def _taught_by_all(p: Any, lane: Any, common: Any) -> None:
    """[C, 64] ``sum_i w_i p_i``."""
    common[:] = 0
    for i in range(p.shape[0]):
        for c in range(p.shape[1]):
            for r in range(_LANES):
                common[c, r] += lane[i, r] * p[i, c, r]


@part(FAST_SUMS)
def _taught_by_node(p: Any, lane: Any, common: Any, g: Any) -> None:
    """[C, 64] ``sum_i w_i (p - p_i)``."""
    total = lane.sum(0)
    for c in range(p.shape[0]):
        for r in range(_LANES):
            g[c, r] = total[r] * p[c, r] - common[c, r]


@part(FAST_SUMS)
def _node_pairs(
    log_p: Any, p: Any, lane: Any, live: Any, first: int, count: int, scale: Any, loss: Any, kl: Any, node_kl: Any
) -> None:
    """Adds ``KL_ij`` and its share of the losses, node by node."""
    sides, peers, classes, _ = p.shape
    rows = np.empty(_LANES, p.dtype)
    for i in range(peers):
        for j in range(peers):
            rows[:] = 0
            for side in range(sides):
                for c in range(classes):
                    for r in range(_LANES):
                        rows[r] += p[side, i, c, r] * (log_p[side, i, c, r] - log_p[side, j, c, r])
            for r in range(count):
                kl[i, j] += live[r] * rows[r]
                loss[j] += lane[i, r] * rows[r]
            if node_kl.size:
                for r in range(count):
                    node_kl[first + r, i, j] = scale * live[r] * rows[r]


@part(FAST_SUMS)
def _cross_entropy(log_p: Any, p: Any, label: Any, first: int, count: int, scale: Any, learns: bool, g: Any) -> float:
    """Of the labels of a tile; adds its gradient to `g`."""
    total = 0.0
    known = np.zeros(_LANES, p.dtype)
    for r in range(count):
        target = label[first + r]
        if 0 <= target < p.shape[0]:
            known[r] = scale
            total -= scale * log_p[target, r]
            if learns:
                g[target, r] -= scale
    if learns:
        for c in range(p.shape[0]):
            for r in range(_LANES):
                g[c, r] += known[r] * p[c, r] if known[r] != 0 else p.dtype.type(0)
    return total


@part(FAST_SUMS)
def _binary_cross_entropy(
    log_p: Any, p: Any, share: Any, first: int, count: int, scale: Any, learns: bool, g: Any
) -> float:
    """Of the labels that are not NaN, ``log_p: [2, C, 64]``; adds its gradient to `g`."""
    total = 0.0
    for r in range(count):
        for c in range(p.shape[0]):
            y = share[first + r, c]
            if y == y:
                total -= scale * (y * log_p[0, c, r] + (1 - y) * log_p[1, c, r])
                if learns:
                    g[c, r] += scale * (p[c, r] - y)
    return total


@part(FAST_SUMS)
def _entropy(log_p: Any, p: Any, mask: Any, first: int, count: int, scale: Any, learns: bool, g: Any) -> float:
    """Of the nodes of a tile, ``p: [S, C, 64]``; adds the gradient of what the loss loses by it to `g`."""
    sides, classes, _ = p.shape
    rows, live = np.zeros(_LANES, p.dtype), np.empty(_LANES, p.dtype)
    _alive(mask, first, count, live)
    for side in range(sides):
        for c in range(classes):
            for r in range(_LANES):
                rows[r] -= p[side, c, r] * log_p[side, c, r]
    total = 0.0
    for r in range(count):
        live[r] *= scale
        total += live[r] * rows[r]
    if learns and sides == 2:
        for c in range(classes):
            for r in range(_LANES):
                g[c, r] += live[r] * p[0, c, r] * p[1, c, r] * (log_p[0, c, r] - log_p[1, c, r])
    elif learns:
        for c in range(classes):
            for r in range(_LANES):
                g[c, r] += live[r] * p[0, c, r] * (log_p[0, c, r] + rows[r])
    return total


@part(FAST_SUMS)
def _through_softmax(p: Any, pull: Any) -> None:
    """``p (pull - <p, pull>)`` in place of `pull`."""
    mean = np.zeros(_LANES, p.dtype)
    for c in range(p.shape[0]):
        for r in range(_LANES):
            mean[r] += p[c, r] * pull[c, r]
    for c in range(p.shape[0]):
        for r in range(_LANES):
            pull[c, r] = p[c, r] * (pull[c, r] - mean[r])
