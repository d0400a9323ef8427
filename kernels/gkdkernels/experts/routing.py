"""Routing of rows to experts: by cosine to a memory (RbM, Rumiantsev & Coates 2024) or by any scores.

With ``xh = x / |x|`` and ``Mh_e = M_e / |M_e|`` (a zero row stays zero):

    s = xh Mh^T            T = the k largest of s, ties to the lowest expert            alpha = softmax(s_T)

so that ``sum alpha = 1``. Everything but the choice T is differentiable, in x and in M; RbM passes ``memory.detach()``.
The memory follows the rows that were routed to it, with ``w`` a softmax over those rows:

    M_e <- decay Mh_e + (1 - decay) sum_i w_ie xh_i            w_ie = softmax_{i: e in T(i)}(alpha_ie)

The CPU path divides the product by the norms instead of the features: one pass over x, no normalised copy. Norms and
cosines of half precisions are fp32: a rounded cosine would change experts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.autocast import autocast_off
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.indices import check_indices_of
from gkdkernels.core.registration import register
from gkdkernels.experts.reference import select_reference
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures
from gkdkernels.spmm.op import spmm

EPS = 1e-12  # the least norm that divides
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # of the hash of a row
_PROBES = 8  # elements of a row that are compared first
_FEW = 64  # rows up to which one sort is quicker than k passes
BACKENDS = declare("route_by_memory", "reference", "cpu", "triton")


def route_by_memory(x: Features, memory: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """The k experts whose memory points most nearly in the direction of each row.

    Args:
        x: [N, D] features; sparse and mixed ones without gradient. A zero row has cosine 0 to all, so that it takes
            the first k experts in equal parts.
        memory: [E, D] float, one direction per expert. Of equal rows the lowest comes first.
        k: experts per row, in [1, E].
        backend: "auto", "reference" (any device), "cpu" or "triton" (dense x).

    Returns:
        index [N, k] int64, largest cosine first; alpha and cosine [N, k], at least fp32, differentiable in `x` and
        `memory` once ("reference" and "cpu": any number of times).

    Raises:
        ValueError: an unknown `backend`, `k` out of range, a sparse x with a gradient, a wrong shape, dtype or device.

    Example:
        >>> memory = torch.eye(2)  # expert 0 points along the first axis, expert 1 along the second
        >>> index, alpha, cosine = route_by_memory(torch.tensor([[3.0, 4.0]]), memory, 2)
        >>> index, cosine
        (tensor([[1, 0]]), tensor([[0.8000, 0.6000]]))
        >>> alpha  # the softmax of the cosines
        tensor([[0.5498, 0.4502]])
    """
    check_routing(x, memory, k)
    chosen = choose("route_by_memory", backend, BACKENDS, memory)
    if chosen == "triton" and isinstance(x, Tensor):
        index, alpha, cosine = _operator(x, memory, k)
        return index, alpha, cosine
    with autocast_off(memory.device):  # a rounded product would change experts
        scores = cosines(x, memory, backend=chosen)
    first = first_of_equals(memory)
    return select_reference(scores, k, first) if chosen == "reference" else _select(scores, k, first)


def route_by_scores(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest scores of each row and their softmax: a linear router, or any other.

    Args:
        scores: [N, E] float.
        k: experts per row, in [1, E].

    Returns:
        index [N, k] int64, largest score first, ties to the lowest expert; alpha and score [N, k] of `scores`' dtype,
        differentiable in `scores`.

    Raises:
        ValueError: `k` out of range, or a wrong shape or dtype.
    """
    if scores.dim() != 2 or not scores.is_floating_point():
        raise ValueError(f"scores: expected a float matrix [N, E], got {scores.dtype} of shape {tuple(scores.shape)}")
    _check_k(k, scores.size(1))
    return _select(scores, k)


@torch.no_grad()
def memory_update(
    memory: Tensor, x: Features, index: Tensor, alpha: Tensor, *, decay: float = 0.9, norms: Tensor | None = None
) -> Tensor:
    """The memory after one forward: a moving average towards the rows that each expert received.

    Args:
        memory: [E, D] float.
        x: [N, D] the rows that were routed.
        index: [N, k] int, the experts of each row, distinct.
        alpha: [N, k] their weights, in [0, 1].
        decay: of the old direction.
        norms: [N] ``row_norms(x)``, where the caller has them.

    Returns:
        [E, D] of `memory`'s dtype, a new tensor without gradient. An expert without rows keeps its direction, scaled by
        `decay`.

    Raises:
        ValueError: a wrong shape, or `decay` outside [0, 1].
    """
    if memory.dim() != 2 or memory.size(1) != x.shape[1]:
        raise ValueError(f"memory: expected shape [E, {x.shape[1]}], got {tuple(memory.shape)}")
    for name, tensor in (("index", index), ("alpha", alpha)):
        if tensor.dim() != 2 or tensor.size(0) != x.shape[0] or tensor.shape != index.shape:
            raise ValueError(f"{name}: expected shape [{x.shape[0]}, k] as the rows of x, got {tuple(tensor.shape)}")
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay: expected a value in [0, 1], got {decay}")
    check_indices_of("index", index, memory.size(0))
    with autocast_off(memory.device):
        return _updated(memory, x, index, alpha, decay, norms)


def _updated(memory: Tensor, x: Features, index: Tensor, alpha: Tensor, decay: float, norms: Tensor | None) -> Tensor:
    wide = accumulation_dtype(memory.dtype)
    # alpha lies in [0, 1]: its exponential needs no shift
    pull = routing_matrix(index, alpha.to(wide).exp(), memory.size(0))  # [N, E]
    total = pull.sum(0)
    norms = row_norms(x, wide) if norms is None else norms
    mean = _transposed_product(x, pull / norms[:, None], wide) / total.clamp(min=1.0)[:, None]
    return (decay * F.normalize(memory.to(wide), dim=1, eps=EPS) + (1.0 - decay) * mean).to(memory.dtype)


def cosines(x: Features, memory: Tensor, *, backend: str = "cpu", norms: Tensor | None = None) -> Tensor:
    """[N, E] cosines of the rows of ``x: [N, D]`` and ``memory: [E, D]``, at least fp32; differentiable.

    Args:
        norms: [N] ``row_norms(x)``, where the caller has them ("reference" does not read them).
    """
    wide = torch.promote_types(accumulation_dtype(_dtype(x)), memory.dtype)
    direction = F.normalize(memory.to(wide), dim=1, eps=EPS)
    if backend == "reference":
        dense = x if isinstance(x, Tensor) else as_dense(x)
        return F.normalize(dense.to(wide), dim=1, eps=EPS) @ direction.t()
    return _product(x, direction, wide, backend) / (row_norms(x, wide) if norms is None else norms)[:, None]


def routing_matrix(index: Tensor, alpha: Tensor, experts: int) -> Tensor:
    """[N, E] with ``alpha: [N, k]`` at the columns ``index: [N, k]`` and 0 elsewhere; differentiable."""
    return alpha.new_zeros(alpha.size(0), experts).scatter_add(1, index.long(), alpha)


def as_dense(x: SparseFeatures | MixedFeatures) -> Tensor:
    """[N, D] dense copy of sparse or mixed features."""
    return x.dense() if isinstance(x, SparseFeatures) else torch.cat([x.sparse.dense(), x.dense], 1)


def first_of_equals(memory: Tensor) -> Tensor | None:
    """[E] the lowest expert whose row of ``memory: [E, D]`` has the same bits; None where all rows differ.

    A matrix product may round equal columns apart. Rows are compared by a few of their elements, then by a hash of
    their bits, both of which are looked at on the CPU; elsewhere, and in a trace, the answer is always a tensor.
    """
    if memory.numel() == 0:
        return None
    if memory.device.type == "cpu" and not torch.compiler.is_compiling():
        few = memory.detach()[:, :: -(-memory.size(1) // _PROBES)].tolist()
        if len(set(map(tuple, few))) == len(few):
            return None
    rows = (memory.detach() + 0.0).contiguous()  # -0 is 0
    experts = torch.arange(rows.size(0), device=rows.device)
    bits = rows.view({8: torch.int64, 4: torch.int32}.get(rows.element_size(), torch.int16)).long()
    place = torch.arange(1, rows.size(1) + 1, device=rows.device)
    code = (bits * (place * _ODD + 1)).sum(1)  # wraps
    code = code ^ (code >> 29)
    first = torch.where(code[:, None] == code, experts, experts.numel()).amin(1)
    if rows.device.type == "cpu" and not torch.compiler.is_compiling() and torch.equal(first, experts):
        return None
    same = (rows == rows.index_select(0, first)).all(1)
    return torch.where(same, first, experts)


def check_features(x: Features) -> None:
    """Refuse what is no feature matrix, and sparse features that ask for a gradient."""
    if isinstance(x, Tensor):
        if x.dim() != 2 or not x.is_floating_point():
            raise ValueError(f"x: expected a float matrix [N, D], got {x.dtype} of shape {tuple(x.shape)}")
        return
    sparse, dense = (x, None) if isinstance(x, SparseFeatures) else (x.sparse, x.dense)
    if sparse.value.requires_grad or (dense is not None and dense.requires_grad):
        raise ValueError(
            "x: expected no gradient in a sparse x, got requires_grad=True; "
            "use a dense [N, D] tensor to differentiate in x"
        )


def check_routing(x: Features, memory: Tensor, k: int) -> None:
    """Refuse arguments of `route_by_memory` that do not belong together."""
    check_features(x)
    if memory.dim() != 2 or memory.size(1) != x.shape[1]:
        raise ValueError(f"memory: expected shape [E, {x.shape[1]}], got {tuple(memory.shape)}")
    if not memory.is_floating_point() or memory.device != x.device:
        raise ValueError(f"memory: expected a float dtype on {x.device}, got {memory.dtype} on {memory.device}")
    _check_k(k, memory.size(0))


def _select(scores: Tensor, k: int, first: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `select_reference`, without sorting whole rows."""
    with torch.no_grad():
        index = _largest(scores.detach() if first is None else scores.detach().index_select(1, first), k)
    picked = scores.gather(1, index)
    return index, picked.softmax(1), picked


def _largest(scores: Tensor, k: int) -> Tensor:
    """[N, k] columns of the largest entries in falling order, ties to the lowest column (`topk` promises no order)."""
    if scores.size(0) <= _FEW:
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    # -inf marks what was taken, so that a score must not be -inf
    left = scores.clamp(min=torch.finfo(scores.dtype).min)
    index = torch.empty(scores.size(0), k, dtype=torch.int64, device=scores.device)
    for slot in range(k):
        best = left.max(1, keepdim=True).indices  # the first of equal ones
        index[:, slot : slot + 1] = best
        if slot + 1 < k:
            left.scatter_(1, best, -torch.inf)
    return index


def _forward(x: Tensor, memory: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    from gkdkernels.experts.routing_triton import route_triton

    return route_triton(x, memory, k)[:3]


def _fake(x: Tensor, memory: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(accumulation_dtype(x.dtype), memory.dtype)
    index = x.new_empty(x.size(0), k, dtype=torch.int64)
    return index, x.new_empty(x.size(0), k, dtype=wide), x.new_empty(x.size(0), k, dtype=wide)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(*inputs[:2], *output)


def _gradients(ctx: Any, _: Tensor, dalpha: Tensor, dcosine: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """With ``ds = alpha (dalpha - <alpha, dalpha>) + dcosine`` at the chosen experts and 0 elsewhere, ``u = ds / |x|``:

    d x = u Mh - (<ds, s> / |x|^2) x          d Mh = u^T x          d M = (d Mh - <d Mh, Mh> Mh) / |M|
    """
    x, memory, index, alpha, cosine = ctx.saved_tensors
    ds = alpha * (dalpha - (alpha * dalpha).sum(1, keepdim=True)) + dcosine  # [N, k]
    rows, norm = x.to(ds.dtype), torch.linalg.vector_norm(x, dim=1, dtype=ds.dtype, keepdim=True)
    scale = norm.clamp(min=EPS)
    at = routing_matrix(index, ds / scale, memory.size(0))  # [N, E]
    length = torch.linalg.vector_norm(memory, dim=1, dtype=ds.dtype, keepdim=True)
    direction = memory.to(ds.dtype) / length.clamp(min=EPS)
    dx = dmemory = None
    if ctx.needs_input_grad[0]:
        # below EPS the norm is a constant
        pull = torch.where(norm > EPS, (ds * cosine).sum(1, keepdim=True) / scale.square(), 0.0)
        dx = (at @ direction).addcmul_(pull, rows, value=-1).to(x.dtype)
    if ctx.needs_input_grad[1]:
        transposed = at.t() @ rows  # [E, D]
        along = torch.where(length > EPS, (transposed * direction).sum(1, keepdim=True), 0.0)
        dmemory = ((transposed - along * direction) / length.clamp(min=EPS)).to(memory.dtype)
    return dx, dmemory, None


_operator = register(
    "route_by_memory(Tensor x, Tensor memory, int k) -> (Tensor, Tensor, Tensor)",
    _forward,
    fake=_fake,
    setup_context=_save,
    backward=_gradients,
)


def _product(x: Features, direction: Tensor, wide: torch.dtype, backend: str) -> Tensor:
    """[N, E] ``x direction^T``."""
    if isinstance(x, Tensor):
        return x.to(wide) @ direction.t()
    if isinstance(x, SparseFeatures):
        return spmm(x.graph, direction.t(), x.value.to(wide), backend=backend)
    split = x.sparse.shape[1]
    sparse = _product(x.sparse, direction[:, :split], wide, backend)
    return sparse + _product(x.dense, direction[:, split:], wide, backend)


def _transposed_product(x: Features, weight: Tensor, wide: torch.dtype) -> Tensor:
    """[E, D] ``weight^T x`` of ``weight: [N, E]``."""
    if isinstance(x, Tensor):
        return weight.t() @ x.to(wide)
    if isinstance(x, SparseFeatures):
        transposed = x.graph.transposed
        return spmm(transposed.graph, weight, x.transposed.to(wide)).t()
    return torch.cat([_transposed_product(x.sparse, weight, wide), _transposed_product(x.dense, weight, wide)], 1)


def row_norms(x: Features, dtype: torch.dtype | None = None) -> Tensor:
    """[N] Euclidean norms of the rows of ``x: [N, D]``, at least `EPS`, in `dtype` (default: x's, at least fp32)."""
    wide = dtype or accumulation_dtype(_dtype(x))
    if isinstance(x, Tensor):
        return _dense_norms(x, wide).clamp(min=EPS)
    if isinstance(x, SparseFeatures):
        return _square_sums(x.graph, x.value.to(wide)).sqrt().clamp(min=EPS)
    sparse = _square_sums(x.sparse.graph, x.sparse.value.to(wide))
    return (sparse + _dense_norms(x.dense, wide).square()).sqrt().clamp(min=EPS)


def _dense_norms(x: Tensor, wide: torch.dtype) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=wide)
    return norms


def _square_sums(graph: CSRGraph, value: Tensor) -> Tensor:
    return value.new_zeros(graph.num_dst).index_add_(0, graph.row, value.square())


def _dtype(x: Features) -> torch.dtype:
    if isinstance(x, Tensor):
        return x.dtype
    return x.value.dtype if isinstance(x, SparseFeatures) else x.dense.dtype


def _check_k(k: int, experts: int) -> None:
    if not 1 <= k <= experts:
        raise ValueError(f"k: expected a number of experts in [1, E={experts}], got {k}")
