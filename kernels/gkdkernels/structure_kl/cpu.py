"""Measures of every edge and their gradients on the CPU, without a compiler and without an [E, D] tensor.

`embedding_bag` gathers rows several times faster than `index_select`. A bag of the two ends with the weights 1 and -1
is their difference, exactly; chunks of differences stay in the cache. The cosine is a sampled product of the matrix
with its own transpose. The gradient of a measure in x_i is a sum over the edges of i alone, so that an edge and its
reverse (same measure, same gradient in x_i) are one term: a symmetric graph takes one pass. Every output row is one
sum in a fixed order.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gkdkernels.spmm.cpu import row_sum
from gkdkernels.structure_kl.edge_rows import EdgeRows, UndirectedEdges

_LOST = 64.0  # times the rounding of fp32 or fp64 is what the gradient of squares may lose
_CHUNK_ELEMENTS = 1 << 20  # [chunk, D] differences: small to stay in a cache, large to be worth a second thread


def measure(kind: str, x: Tensor, rows: EdgeRows, halves: UndirectedEdges | None = None) -> Tensor:
    """[E] the measure of every edge of ``x: [N, D]``, fp32 or fp64.

    Args:
        halves: of a symmetric graph. An edge's differences are those of its reverse with the other sign: distances are
            taken once, and are the same to the bit.
    """
    if rows.other.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(rows.other.numel())
    if kind == "cosine":
        scale = inverse_norm(x)
        product = _sampled_product(x, rows)
        product *= scale.index_select(0, rows.row)
        return product.mul_(scale.index_select(0, rows.other))
    count = rows.other.numel() if halves is None else halves.ends.numel() // 2
    out = x.new_empty(count)
    step, weight, bags = _difference_plan(x)
    for start in range(0, count, step):
        edges = slice(start, start + step)
        ends = _ends(rows, edges) if halves is None else halves.ends[2 * start : 2 * (start + step)]
        difference = _difference(x, ends, weight, bags)
        difference = difference.abs_() if kind == "l1" else difference.mul_(difference)
        torch.sum(difference, -1, out=out[edges])
    return out if halves is None else out.index_select(0, halves.place)


def gradient(kind: str, x: Tensor, rows: EdgeRows, weight: Tensor, value: Tensor) -> Tensor:
    """[N, D] ``sum_e weight_e dm_e / dx_i`` over the edges of each row i.

    Args:
        weight: [E] upstream of each edge's measure.
        value: [E] the measure.
    """
    if rows.other.numel() == 0 or x.size(1) == 0:
        return torch.zeros_like(x)
    if kind == "l1":
        return _l1_gradient(x, rows, weight)
    if kind == "square":
        # differences do not change with the mean, and loops have none
        centred, weight = x - x.mean(0), weight.masked_fill(rows.row == rows.other, 0.0)
        total = row_sum(weight, rows.indptr)
        out = _bag(centred, rows, weight).sub_(centred * total[:, None]).mul_(-2.0)
        return _without_cancellation(out, x, centred, rows, weight, value)
    scale = inverse_norm(x)
    along = row_sum(weight * value, rows.indptr).mul_(scale * scale)
    across = _bag(x, rows, weight * scale.index_select(0, rows.other)).mul_(scale[:, None])
    return across.addcmul_(x, along[:, None], value=-1.0)


def _without_cancellation(
    out: Tensor, x: Tensor, centred: Tensor, rows: EdgeRows, weight: Tensor, value: Tensor
) -> Tensor:
    """The gradient of squares, its rows taken from the differences themselves where the two sums of `gradient` cancel.

    The sums are as large as a row is far from the mean, their difference as its neighbours are from the row: digits go
    with the quotient. Where that is NaN, as one NaN row makes the mean, it counts as too large, too.
    """
    far, pull = torch.linalg.vector_norm(centred, dim=-1), weight.abs()
    square = far.square().index_select(0, rows.row).sub_(value, alpha=_LOST**2)  # [E]
    if square.numel() == 0 or bool(square.mul_(pull).amax() <= 0):  # no edge cancels by itself
        return out
    cancels = ~(far.mul_(row_sum(pull, rows.indptr)) <= _LOST * row_sum(pull * value.sqrt(), rows.indptr))
    if not bool(cancels.any()):
        return out
    out[cancels] = 0.0
    step = max(1, _CHUNK_ELEMENTS // x.size(1))
    for edges in torch.split(cancels.index_select(0, rows.row).nonzero()[:, 0], step):
        here = rows.row[edges]
        difference = x.index_select(0, here).sub_(x.index_select(0, rows.other[edges]))
        # a weight of 0 is a loop, or an edge whose gradient is 0
        out.index_add_(0, here, difference.mul_(2.0 * weight[edges, None]))
    return out


def inverse_norm(x: Tensor) -> Tensor:
    """[N] ``1 / |x_i|``, 0 for a zero row."""
    norm = torch.linalg.vector_norm(x, dim=-1)
    return torch.where(norm <= torch.finfo(x.dtype).tiny, 0.0, norm.reciprocal())  # NaN stays NaN


def _sampled_product(x: Tensor, rows: EdgeRows) -> Tensor:
    if rows.other.numel() > x.size(0) ** 2:  # parallel edges beyond the complete graph, which torch refuses
        step = max(1, _CHUNK_ELEMENTS // x.size(1))
        ends = zip(torch.split(rows.row, step), torch.split(rows.other, step), strict=True)
        return torch.cat([x.index_select(0, i).mul_(x.index_select(0, j)).sum(-1) for i, j in ends])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR", UserWarning)
        pattern = torch.sparse_csr_tensor(
            rows.indptr, rows.other, x.new_zeros(rows.other.numel()), (x.size(0), x.size(0)), check_invariants=False
        )
    product: Tensor = torch.sparse.sampled_addmm(pattern, x, x.t(), beta=0.0).values()
    return product


def _bag(x: Tensor, rows: EdgeRows, weight: Tensor) -> Tensor:
    return torch.embedding_bag(x, rows.other, rows.indptr, mode=0, per_sample_weights=weight, include_last_offset=True)[
        0
    ]


def _difference_plan(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Edges of a chunk, and the weights and offsets of its bags of two."""
    step = max(1, _CHUNK_ELEMENTS // x.size(1))
    return step, x.new_tensor([1.0, -1.0]).repeat(step), torch.arange(0, 2 * step + 1, 2)


def _ends(rows: EdgeRows, edges: slice) -> Tensor:
    """[2 chunk] the two ends of every edge, one after the other."""
    return torch.stack((rows.row[edges], rows.other[edges]), 1).flatten()


def _difference(x: Tensor, ends: Tensor, weight: Tensor, bags: Tensor) -> Tensor:
    """[chunk, D] ``x_i - x_j`` of the pairs in `ends`."""
    count = ends.numel()
    offsets = bags[: count // 2 + 1].to(ends.dtype)
    return torch.embedding_bag(x, ends, offsets, mode=0, per_sample_weights=weight[:count], include_last_offset=True)[0]


def _l1_gradient(x: Tensor, rows: EdgeRows, weight: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    step, signs, bags = _difference_plan(x)
    position = torch.arange(step)
    borders = rows.row[::step].tolist()  # the first row of every chunk
    last = int(rows.row[-1])
    for chunk, start in enumerate(range(0, weight.numel(), step)):
        edges = slice(start, start + step)
        sign = _difference(x, _ends(rows, edges), signs, bags).sign_()
        count = sign.size(0)
        first = borders[chunk]
        stop = (borders[chunk + 1] if chunk + 1 < len(borders) else last) + 1
        # a row that a chunk's border cuts gets its sum in two parts, in order
        offsets = (rows.indptr[first : stop + 1].long() - start).clamp_(0, count)
        out[first:stop] += torch.embedding_bag(
            sign, position[:count], offsets, mode=0, per_sample_weights=weight[edges], include_last_offset=True
        )[0]
    return out
