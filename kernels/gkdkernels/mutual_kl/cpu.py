"""The CPU path of `mutual_kl`: stock torch over blocks of nodes that stay in the cache.

One read and one write of the logits. Everything between (softmax, gradient, Gram matrix) works on a block of nodes
of all peers, [K, n, C], that fits the second-level cache; both K x K products are matrix products over that block.
Each thread takes blocks of its own through all steps, rather than a share of every step: the threads meet once a call
and not at every torch operation. Sums over blocks are added in their order, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.impossible import settled

_BLOCK_ELEMENTS = 1 << 18  # of [K, n, C]: with its twin of probabilities 2 MB, and work enough to hide the calls' cost
_GRAM_ROWS = 32  # nodes per Gram matrix: short fp32 sums, which are then added in fp64

ResultT = TypeVar("ResultT")


def peer_pass_cpu(
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
    of_kl, of_ce, of_entropy = scale.tolist()
    left_out = None if weight is None or kl_mask is None else ~kl_mask
    grad = logits[0].new_empty((peers, rows, classes) if learns else 0)
    node_kl = scale.new_empty((rows, peers, peers) if per_node else 0)
    if classes == 0:
        node_kl.zero_()
    weight = None if weight is None else weight.detach()
    pairs = mix = None
    if weight is not None and weight.dim() == 2:
        pairs = weight.clone().fill_diagonal_(0)
        mix = of_kl * (pairs.sum(0).diag() - pairs).t()  # [K, K], d loss / d z = mix @ p

    def visit(block: slice, log_p: Tensor, p: Tensor, careful: bool) -> tuple[Tensor, Tensor]:
        """loss [K] and KL [K, K] of a block, in fp64; writes its gradient."""
        loss, kl = torch.zeros(peers, dtype=torch.float64), torch.zeros(peers, peers, dtype=torch.float64)
        g = None
        if learns:
            g = grad[:, block]
            g = g if grad.dtype == scale.dtype else torch.empty(g.shape, dtype=scale.dtype)  # [K, n, C]
            if targets is not None or entropy or mix is None:
                g.zero_()
        if targets is not None:
            loss += of_ce * _cross_entropy(log_p, p, targets[block], of_ce, g)
        if entropy:
            mask = None if entropy_mask is None else entropy_mask[block]
            loss -= of_entropy * _entropy(settled(log_p, p) if careful else log_p, p, mask, of_entropy, g)
        if left_out is not None:
            p.index_fill_(2, _places(left_out[block]), 0.0)
        if mix is not None:
            if g is not None:
                flat = g.view(peers, -1)
                torch.addmm(flat, mix, p[0].view(peers, -1), beta=float(targets is not None or entropy), out=flat)
            rows_kl = _pair_kl(log_p, p) if careful else _gram_kl(log_p, p, _GRAM_ROWS)
            kl += rows_kl.sum(0, dtype=torch.float64)
        elif weight is not None:
            own = weight[block] if left_out is None else weight[block].masked_fill(left_out[block, None, None], 0.0)
            taught = own.permute(1, 0, 2) * of_kl  # [K, n, 1]
            if g is not None:
                g.addcmul_(p[0], taught.sum(0)).sub_((p[0] * taught).sum(0))
            rows_kl = _pair_kl(log_p, p) if careful else _gram_kl(log_p, p, 1)  # [n, K, K]
            kl += rows_kl.sum(0, dtype=torch.float64)
            loss += torch.einsum("inz,nij->j", taught, rows_kl)
            if per_node:
                node_kl[block] = of_kl * rows_kl
        if g is not None and grad.dtype != scale.dtype:
            grad[:, block] = g
        return loss, kl

    loss, kl = torch.zeros(peers, dtype=torch.float64), torch.zeros(peers, peers, dtype=torch.float64)
    for part, part_kl in _over_blocks(logits, scale.dtype, multi_label, visit, _all_finite):
        loss += part
        kl += part_kl
    kl *= of_kl
    if pairs is not None:
        loss += (pairs * kl).sum(0)
    return loss.to(scale.dtype), kl.to(scale.dtype), grad, node_kl


def teacher_side_cpu(
    logits: list[Tensor], weight: Tensor, g: Tensor, kl_mask: Tensor | None, scale: Tensor, multi_label: bool
) -> Tensor:
    """As `teacher_side` of the module `mutual_kl`."""
    peers = len(logits)
    grad = logits[0].new_empty(peers, *logits[0].shape)
    weight = weight.detach()
    if weight.dim() == 2:
        pairs = (weight * (scale[0] * g)).fill_diagonal_(0)
        mix = pairs.sum(1).diag() - pairs  # [K, K]
    else:
        mix = scale[0] * (g.sum().expand(peers).diag() - g)

    def visit(block: slice, log_p: Tensor, p: Tensor, careful: bool) -> Tensor:
        natural = log_p[0] - log_p[1] if multi_label else log_p[0]
        if careful:
            slope = p[0] * p[1] if multi_label else p[0]
            pull = torch.zeros_like(natural)
            for j in range(peers):
                pull += mix[:, j, None, None] * settled(natural[j] - natural, slope)
        else:
            pull = (mix @ natural.view(peers, -1)).view(natural.shape)  # [K, n, C] sum_j g_j w_ij (log p_i - log p_j)
        if weight.dim() == 3:
            pull *= weight[block].permute(1, 0, 2)
        side = p[0] * p[1] * pull if multi_label else p[0] * (pull - (p[0] * pull).sum(-1, keepdim=True))
        grad[:, block] = side if kl_mask is None else side.index_fill_(1, _places(~kl_mask[block]), 0.0)
        return side.sum()

    _over_blocks(logits, scale.dtype, multi_label, visit, lambda total: bool(total.isfinite()))
    return grad


def _over_blocks(
    logits: list[Tensor],
    dtype: torch.dtype,
    multi_label: bool,
    visit: Callable[[slice, Tensor, Tensor, bool], ResultT],
    fine: Callable[[ResultT], bool],
) -> list[ResultT]:
    """`visit` every block of nodes with its log-probabilities and probabilities [S, K, n, C], which it may overwrite.

    S = 1, or 2 with several labels: of each label being there, and not. A block whose result is not `fine` is visited
    once more, carefully: logarithms of probabilities of 0 are infinite in it.
    """
    peers, (rows, classes), sides = len(logits), logits[0].shape, 2 if multi_label else 1
    if rows * classes == 0:
        return []
    step = max(_GRAM_ROWS, _BLOCK_ELEMENTS // (sides * peers * classes) // _GRAM_ROWS * _GRAM_ROWS)
    blocks = [slice(start, min(rows, start + step)) for start in range(0, rows, step)]

    def walk(share: list[slice]) -> list[ResultT]:
        found = []
        buffers = torch.empty(2, sides * peers * min(step, rows) * classes, dtype=dtype)
        for block in share:
            shape = (sides, peers, block.stop - block.start, classes)
            log_p, p = (buffer[: sides * peers * shape[2] * classes].view(shape) for buffer in buffers)
            _probabilities(logits, block, multi_label, log_p, p)
            result = visit(block, log_p, p, False)
            if not fine(result):
                _probabilities(logits, block, multi_label, log_p, p)
                result = visit(block, log_p, p, True)
            found.append(result)
        return found

    threads = min(torch.get_num_threads(), len(blocks))
    if threads == 1:
        return _without_grad(walk, blocks)
    each = -(-len(blocks) // threads)
    shares = [blocks[i : i + each] for i in range(0, len(blocks), each)]
    before = torch.get_num_threads()
    with ThreadPoolExecutor(len(shares), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = [part for parts in pool.map(lambda share: _without_grad(walk, share), shares) for part in parts]
    torch.set_num_threads(before)  # threads that torch starts later take the last number that any thread has set
    return found


def _probabilities(logits: list[Tensor], block: slice, multi_label: bool, log_p: Tensor, p: Tensor) -> None:
    """Fills `log_p` and `p` [S, K, n, C]."""
    for k, z in enumerate(logits):
        if multi_label:
            wide = z[block].to(log_p.dtype)
            log_p[0, k], log_p[1, k] = F.logsigmoid(wide), F.logsigmoid(-wide)
        else:
            torch.log_softmax(z[block], -1, dtype=log_p.dtype, out=log_p[0, k])
    torch.exp(log_p, out=p)


def _all_finite(result: tuple[Tensor, Tensor]) -> bool:
    return all(bool(total.isfinite().all()) for total in result)


def _without_grad(walk: Callable[[list[slice]], list[ResultT]], share: list[slice]) -> list[ResultT]:
    """Whether gradients are recorded is a thread's own, and on in a new one."""
    with torch.no_grad():
        return walk(share)


def _gram_kl(log_p: Tensor, p: Tensor, together: int) -> Tensor:
    """[n / together, K, K] KL_ij, summed over `together` nodes at a time. Overwrites `log_p`.

    A logarithm that all peers share cancels in ``<p_i, log p_i> - <p_i, log p_j>``. Without it the products are as
    small as the peers' disagreement, and so is their rounding: identical peers give exactly 0.
    """
    _, peers, rows, _ = p.shape
    log_p -= log_p.sum(1, keepdim=True).div_(peers)
    groups = rows // together if rows % together == 0 else rows
    gram = p.new_zeros(groups, peers, peers)
    for x, y in zip(p, log_p, strict=True):
        gram.baddbmm_(x.view(peers, groups, -1).transpose(0, 1), y.view(peers, groups, -1).permute(1, 2, 0))
    return gram.diagonal(dim1=1, dim2=2)[..., None] - gram


def _pair_kl(log_p: Tensor, p: Tensor) -> Tensor:
    """[n, K, K] KL_ij of each node as it stands, pair by pair; a class that both rule out counts 0."""
    _, peers, rows, _ = p.shape
    kl = p.new_zeros(rows, peers, peers)
    for i in range(peers):
        for j in range(peers):
            if i != j:
                kl[:, i, j] = (p[:, i] * settled(log_p[:, i] - log_p[:, j], p[:, i])).sum((0, -1))
    return kl


def _places(left_out: Tensor) -> Tensor:
    """Of the true ones: filled by their places, rows take a quarter of the time that a mask takes."""
    return left_out.nonzero()[:, 0]


def _cross_entropy(log_p: Tensor, p: Tensor, targets: Tensor, scale: float, g: Tensor | None) -> Tensor:
    """[K] summed over the labels of the block; adds its gradient to `g`."""
    if targets.is_floating_point():
        there = ~targets.isnan()
        y = targets.to(p.dtype).where(there, 0)
        slope, inside = p[0] - y, y * log_p[0] + (1 - y) * log_p[1]
        if not bool(there.all()):
            slope, inside = slope.where(there, 0), inside.where(there, 0)
        if g is not None:
            g += scale * slope
        return -inside.sum((1, 2), dtype=torch.float64)
    at = (targets >= 0).nonzero()[:, 0]
    label = targets[at].long()
    if g is not None:
        g[:, at] += scale * p[0][:, at]
        g[:, at, label] -= scale
    return -log_p[0][:, at, label].sum(1, dtype=torch.float64)


def _entropy(log_p: Tensor, p: Tensor, mask: Tensor | None, scale: float, g: Tensor | None) -> Tensor:
    """[K] summed over the rows of the block; adds the gradient of minus its mean to `g`."""
    rows = -(p * log_p).sum((0, -1))  # [K, n]
    if mask is not None:
        rows = rows.where(mask, 0)
    if g is not None:
        slope = p[0] * p[1] * (log_p[0] - log_p[1]) if p.size(0) == 2 else p[0] * (log_p[0] + rows[..., None])
        g += scale * (slope if mask is None else slope.index_fill_(1, _places(~mask), 0.0))
    return rows.sum(1, dtype=torch.float64)
