"""Folded inference of an RbM layer: everything but the routing becomes one linear map per expert.

The weights of a row's experts sum to 1, so that the temperature t, the input gate c and a BatchNorm in evaluation mode
(mean m, variance v, scale gamma, shift beta) fold exactly into W' and b'. With ``a = gamma / sqrt(v + eps)``:

    W'_e = exp(t) diag(exp(c_e)) W_e diag(a)            b'_e = a (exp(t) b_e - m) + beta
    y = ReLU( sum_{e in T} alpha_e (W'_e^T x + b'_e) )

On a GPU the routing's histogram is the first step of the counting sort: nothing is counted twice. On a CPU a single
row, the usual request to a server, is k matrix-vector products and little else, over its non-zeros where they are few
(as in a bag of words, stored sparse or dense); there the calls are the cost, of which `experts.folded_numba` needs one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkdkernels.core.dispatch import choose, declare
from gkdkernels.core.registration import register
from gkdkernels.experts.folded_types import BatchNormStatistics, FoldedExperts
from gkdkernels.experts.op import expert_linear, folded_weight
from gkdkernels.experts.reference import LOG_CAP
from gkdkernels.experts.routing import EPS, check_routing, route_by_memory
from gkdkernels.graph import Features, SparseFeatures

BACKENDS = declare("rbm_layer", "reference", "cpu", "triton", "numba")
GATHER_COST = 4
"""On a CPU a weight row that is gathered costs as much as so many that are read in order."""
LOOK_FROM = 1 << 19
"""Weights of a row's experts from which on looking for its zeros, and gathering, is less than reading them all."""


@torch.no_grad()
def fold_experts(
    weight: Tensor,
    bias: Tensor | None,
    memory: Tensor,
    *,
    gate: Tensor | None = None,
    log_temperature: Tensor | None = None,
    batch_norm: BatchNormStatistics | None = None,
) -> FoldedExperts:
    """Fold a layer once, for any number of `rbm_layer` calls.

    Args:
        weight, bias, gate, log_temperature: as of `expert_linear`.
        memory: [E, D], as of `route_by_memory`.
        batch_norm: of the layer's outputs, if there is one.

    Returns:
        New tensors of `weight`'s dtype, computed in at least fp32, without gradient.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(weight, memory, batch_norm)
    wide = torch.promote_types(weight.dtype, torch.float32)
    folded = folded_weight(weight.to(wide), gate, log_temperature)
    shift = (weight.new_zeros(weight.size(0), weight.size(2)) if bias is None else bias).to(wide)
    if log_temperature is not None:
        shift = shift * log_temperature.clamp(max=LOG_CAP).exp()
    if batch_norm is not None:
        factor = batch_norm.scale.to(wide) / (batch_norm.variance.to(wide) + batch_norm.eps).sqrt()
        folded, shift = folded * factor, factor * (shift - batch_norm.mean.to(wide)) + batch_norm.shift.to(wide)
    direction = F.normalize(memory.to(wide), dim=1, eps=EPS)
    return FoldedExperts(folded.to(weight.dtype), shift.to(weight.dtype), direction)


def rbm_layer(x: Features, folded: FoldedExperts, k: int, *, relu: bool = True, backend: str = "auto") -> Tensor:
    """One RbM layer in evaluation mode, from folded weights.

    Args:
        x: [N, D] features of the weights' dtype.
        folded: of `fold_experts`.
        k: experts per row.
        relu: whether the layer ends in a ReLU (the last one does not).
        backend: as of `route_by_memory` and `expert_linear`, or "numba" (extra; only when named: its sums round
            otherwise), the quickest for few rows and for rows with many zeros.

    Returns:
        [N, H] of `x`'s dtype, without gradient.

    Raises:
        ValueError: as `route_by_memory` and `expert_linear`.
    """
    value = x.value if isinstance(x, SparseFeatures) else x
    device_of = value if isinstance(value, Tensor) else value.dense
    chosen = choose("rbm_layer", backend, BACKENDS, device_of)
    if chosen == "numba":
        from gkdkernels.experts.folded_numba import rbm_layer_numba

        _check_row(x, device_of, folded, k)
        return rbm_layer_numba(x, folded, k, relu)
    with torch.no_grad():
        y = _layer(x, folded, k, chosen, backend)
        return y.relu_() if relu else y


def _layer(x: Features, folded: FoldedExperts, k: int, chosen: str, backend: str) -> Tensor:
    value = x.value if isinstance(x, SparseFeatures) else x
    if chosen == "cpu" and x.shape[0] == 1 and isinstance(value, Tensor) and value.dtype == folded.direction.dtype:
        _check_row(x, value, folded, k)
        return _one_row(value.flatten(), x.graph.index if isinstance(x, SparseFeatures) else None, folded, k)
    if isinstance(x, Tensor) and chosen == "triton":
        _check_row(x, x, folded, k)
        y: Tensor = _operator(x, folded.weight, folded.bias, folded.direction, k)
        return y
    index, alpha, _ = route_by_memory(x, folded.direction, k, backend=backend)
    return expert_linear(x, folded.weight, folded.bias, index, alpha, backend=backend)


def _check_row(x: Features, value: Tensor, folded: FoldedExperts, k: int) -> None:
    check_routing(x, folded.direction, k)
    if value.dtype != folded.weight.dtype:
        raise ValueError(f"x: expected the folded weights' {folded.weight.dtype}, got {value.dtype}")


def _one_row(row: Tensor, columns: Tensor | None, folded: FoldedExperts, k: int) -> Tensor:
    """[1, H] of ``row: [D]``, or of its non-zeros ``row: [nnz]`` at `columns`."""
    if columns is None and k * folded.weight[0].numel() >= LOOK_FROM:
        found = row.nonzero().flatten()
        if found.numel() * GATHER_COST < row.numel():  # bags of words come dense, too
            row, columns = row[found], found
    direction = folded.direction if columns is None else folded.direction.index_select(1, columns)
    # a stable sort gives ties to the lowest expert; NaN comes first, is chosen and shows
    score = torch.mv(direction, row)
    if folded.first is not None:
        score = score.index_select(0, folded.first)
    score, order = score.sort(descending=True, stable=True)
    alpha = (score[:k] / torch.linalg.vector_norm(row).clamp(min=EPS)).softmax(0).tolist()
    y = row.new_zeros(folded.weight.size(2))
    for expert, share in zip(order[:k].tolist(), alpha, strict=True):
        weight = folded.weight[expert] if columns is None else folded.weight[expert].index_select(0, columns)
        y.add_(folded.bias[expert], alpha=share).addmv_(weight.t(), row, alpha=share)
    return y[None]


def _forward(x: Tensor, weight: Tensor, bias: Tensor, direction: Tensor, k: int) -> Tensor:
    from gkdkernels.experts.routing_triton import route_triton
    from gkdkernels.experts.triton import forward_triton

    index, alpha, _, counts = route_triton(x, direction, k)
    return forward_triton(x, weight, bias, index, alpha, counts)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, direction: Tensor, k: int) -> Tensor:
    return x.new_empty(x.size(0), weight.size(2))


_operator = register(
    "rbm_layer(Tensor x, Tensor weight, Tensor bias, Tensor direction, int k) -> Tensor", _forward, fake=_fake
)


def _check(weight: Tensor, memory: Tensor, batch_norm: BatchNormStatistics | None) -> None:
    if weight.dim() != 3:
        raise ValueError(f"weight: expected shape [E, D, H], got {tuple(weight.shape)}")
    experts, width, out = weight.shape
    if memory.shape != (experts, width):
        raise ValueError(f"memory: expected shape [{experts}, {width}], got {tuple(memory.shape)}")
    if batch_norm is not None:
        for name in ("mean", "variance", "scale", "shift"):
            found = tuple(getattr(batch_norm, name).shape)
            if found != (out,):
                raise ValueError(f"batch_norm.{name}: expected shape [{out}], got {found}")
