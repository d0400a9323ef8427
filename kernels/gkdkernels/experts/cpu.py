"""`expert_linear` on the CPU: chunks of rows, sorted by expert, one matrix product per expert and chunk.

A chunk's temporaries bound the memory and stay in the cache. A row's experts are added in the order of its slots by
`embedding_bag`, gradients of weights chunk after chunk: two runs are bitwise equal. When nearly every expert is used
(k close to E), gathering and adding cost more than they save: then every expert multiplies every row.

Routes change from step to step, and `products` is slow on the first product of a shape: each expert's pairs are filled
up to a multiple of `_TILE` with its last one, whose weight is then 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gkdkernels.core.dispatch import accumulation_dtype
from gkdkernels.core.matmul_cpu import multiply

_TILE = 32
_ROWS_PER_EXPERT = 1024  # of a chunk, on average: enough for a matrix product to run at full speed
# of the rule between dense and sorted, measured on one core: only ratios matter
_FLOPS_PER_US = 1.8e5
_CALLS_US = 15.0  # the calls per expert
_SORT_US = 100.0
_PAIR_FACTOR = 1.3  # a pair's products with gathering and adding it


def forward_cpu(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor) -> Tensor:
    """[N, H]; ``x: [N, D]``, or [N k, D] with one row per pair. No autograd."""
    experts, _, out = weight.shape
    _check_range(index, experts)
    y = x.new_empty(index.size(0), out)
    if y.numel() == 0:
        return y
    part = _dense_forward if dense_pays(x, weight, index) and _finite(x, weight) else _sorted_forward
    alpha = alpha.to(x.dtype)
    for rows, inputs in _chunks(x, index, experts):
        y[rows] = part(x[inputs], weight, bias, index[rows], alpha[rows])
    return y


def backward_cpu(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and alpha; one that `needs` leaves out is empty."""
    experts, _, out = weight.shape
    wide = accumulation_dtype(x.dtype)
    found = _Gradients(
        torch.zeros(x.shape, dtype=x.dtype) if needs[0] else None,
        torch.zeros(weight.shape, dtype=wide) if needs[1] else None,
        torch.zeros(experts, out, dtype=wide) if needs[2] else None,
        torch.zeros(index.shape, dtype=wide) if needs[3] else None,
    )
    part = _dense_backward if dense_pays(x, weight, index) and _finite(x, weight, g) else _sorted_backward
    narrow = alpha.to(x.dtype)
    if g.numel():
        for rows, inputs in _chunks(x, index, experts):
            part(g[rows], x[inputs], weight, bias, index[rows], narrow[rows], found.chunk(rows, inputs))
    likes = (x, weight, x if bias is None else bias, alpha)
    grads = (found.x, found.weight, found.bias, found.alpha)
    dx, dweight, dbias, dalpha = (
        x.new_empty(0) if grad is None else grad.to(like.dtype) for grad, like in zip(grads, likes, strict=True)
    )
    return dx, dweight, dbias, dalpha


def dense_pays(x: Tensor, weight: Tensor, index: Tensor) -> bool:
    """Whether every expert shall multiply every row: E products a row against k and the work around them.

    Never for half precisions, which would round the running sum once per expert, nor where pairs have their own rows.
    """
    if x.dtype not in (torch.float32, torch.float64) or x.size(0) != index.size(0):
        return False
    (rows, k), (experts, width, out) = index.shape, weight.shape
    product = 2 * width * out / _FLOPS_PER_US  # microseconds a row
    dense = experts * (_CALLS_US + rows * product)
    by_expert = _SORT_US + min(experts, rows * k) * _CALLS_US + rows * k * product * _PAIR_FACTOR
    return dense <= by_expert


def _finite(*tensors: Tensor) -> bool:
    """Whether a product with 0 is 0: what is NaN must stay with the rows and experts that it belongs to."""
    return all(bool(tensor.sum().isfinite()) for tensor in tensors)


@dataclass(frozen=True, slots=True)
class _Gradients:
    """What backward fills, None if not requested; weight and bias are sums over chunks, at least fp32."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    alpha: Tensor | None

    def chunk(self, rows: slice, inputs: slice) -> _Gradients:
        return _Gradients(
            None if self.x is None else self.x[inputs],
            self.weight,
            self.bias,
            None if self.alpha is None else self.alpha[rows],
        )


def _chunks(x: Tensor, index: Tensor, experts: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the rows, and of x, which has one row for each of them or for each pair."""
    rows, k = index.shape
    size = max(1, -(-_ROWS_PER_EXPERT * experts // k))
    per_row = x.size(0) // max(1, rows)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        yield slice(start, stop), slice(start * per_row, stop * per_row)


def _sorted_forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor) -> Tensor:
    pairs = _by_expert(index, weight.size(0))
    source = pairs.order // (index.numel() // x.size(0))
    per_pair = x.new_empty(source.numel(), weight.size(2))
    for expert, span in pairs.spans:
        taken = x.index_select(0, source[span])
        per_pair[span] = multiply(taken, weight[expert], None if bias is None else bias[expert])
    return _row_sums(per_pair, pairs.place, alpha, index.size(0))


def _sorted_backward(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, into: _Gradients
) -> None:
    pairs = _by_expert(index, weight.size(0))
    source, row = pairs.order // (index.numel() // x.size(0)), pairs.order // index.size(1)
    share = alpha.reshape(-1)[pairs.order].mul_(pairs.real)[:, None]  # [P, 1], sorted as everything here
    through = x.new_empty(source.numel(), x.size(1)) if into.x is not None or into.alpha is not None else None
    dots = torch.zeros(source.numel(), dtype=accumulation_dtype(x.dtype))
    for expert, span in pairs.spans:
        upstream = g.index_select(0, row[span])
        inputs = x.index_select(0, source[span])
        if through is not None:
            through[span] = back = multiply(upstream, weight[expert].t())
            if into.alpha is not None:
                dots[span] = (back * inputs).sum(1, dtype=dots.dtype)
            if bias is not None:
                dots[span] += upstream @ bias[expert]
        if into.weight is not None or into.bias is not None:
            upstream.mul_(share[span])
        if into.weight is not None:
            into.weight[expert] += multiply(inputs.t(), upstream)
        if into.bias is not None:
            into.bias[expert] += upstream.sum(0, dtype=dots.dtype)
    if into.x is not None and through is not None:
        into.x.copy_(_row_sums(through, pairs.place, alpha, x.size(0)))
    if into.alpha is not None:
        into.alpha.view(-1).copy_(dots[pairs.place])


def _dense_forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor) -> Tensor:
    share = _shares(index, alpha, weight.size(0))
    y = x.new_zeros(x.size(0), weight.size(2)) if bias is None else share @ bias
    for expert in range(weight.size(0)):
        y += multiply(x * share[:, expert, None], weight[expert])
    return y


def _dense_backward(
    g: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, into: _Gradients
) -> None:
    share = _shares(index, alpha, weight.size(0))
    dshare = torch.zeros_like(share) if bias is None else g @ bias.t()
    for expert in range(weight.size(0)):
        scaled = g * share[:, expert, None]
        if into.alpha is not None:
            dshare[:, expert] += (multiply(g, weight[expert].t()) * x).sum(1)
        if into.x is not None:
            into.x.add_(multiply(scaled, weight[expert].t()))
        if into.weight is not None:
            into.weight[expert] += multiply(x.t(), scaled)
    if into.bias is not None:
        into.bias.addmm_(share.t(), g)
    if into.alpha is not None:
        into.alpha.copy_(dshare.gather(1, index.long()))


def _shares(index: Tensor, alpha: Tensor, experts: int) -> Tensor:
    """[rows, E] the weight of each expert, 0 for one that was not chosen."""
    return alpha.new_zeros(index.size(0), experts).scatter_add_(1, index.long(), alpha)


@dataclass(frozen=True, slots=True)
class _ByExpert:
    """Pairs sorted by expert, stable, each expert's filled up to a multiple of `_TILE`.

    Attributes:
        order: [P'] the sorted pairs; what fills up repeats the expert's last.
        real: [P'] 1, or 0 for what fills up.
        place: [P] where each pair went.
        spans: the id of each expert with pairs, and its slice of `order`.
    """

    order: Tensor
    real: Tensor
    place: Tensor
    spans: list[tuple[int, slice]]


def _by_expert(index: Tensor, experts: int) -> _ByExpert:
    keys = index.reshape(-1).numpy()
    # numpy sorts 16-bit keys by radix
    pairs = np.argsort(keys.astype(np.uint16) if experts <= 1 << 16 else keys, kind="stable")
    counts = np.bincount(keys, minlength=experts)
    surplus = -counts % _TILE
    ends = (counts + surplus).cumsum()
    sorted_place = np.arange(pairs.size) + (surplus.cumsum() - surplus).repeat(counts)
    place = np.empty_like(pairs)
    place[pairs] = sorted_place
    real = np.zeros(ends[-1], dtype=bool)
    real[sorted_place] = True
    order = np.empty_like(pairs, shape=real.size)
    order[real] = pairs
    order[~real] = pairs[counts.cumsum() - 1].repeat(surplus)
    first = (ends - counts - surplus).tolist()
    spans = [(e, slice(a, b)) for e, (a, b) in enumerate(zip(first, ends.tolist(), strict=True)) if b > a]
    return _ByExpert(torch.from_numpy(order), torch.from_numpy(real), torch.from_numpy(place), spans)


def _row_sums(per_pair: Tensor, place: Tensor, alpha: Tensor, rows: int) -> Tensor:
    """[rows, W] ``sum_j alpha_j per_pair[place_j]`` over equal groups of consecutive pairs."""
    if per_pair.size(1) == 0:
        return per_pair.new_empty(rows, 0)
    starts = torch.arange(0, place.numel() + 1, place.numel() // rows)
    weights = alpha.reshape(-1)
    return torch.embedding_bag(per_pair, place, starts, mode=0, per_sample_weights=weights, include_last_offset=True)[0]


def _check_range(index: Tensor, experts: int) -> None:
    if index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= experts:
            raise ValueError(f"index: expected values in [0, {experts}), got {low}..{high}")
