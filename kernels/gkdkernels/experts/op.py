"""A layer of linear experts of which each row uses k: the maths, the reference, and the operator.

For row n with experts e = index[n, j], weights alpha[n, j], an input gate c and a temperature t (RbM's layer):

    y_n = exp(t) sum_j alpha_nj ( W_e^T (exp(c_e) * m_n * x_n) + b_e )           exponents are cut off at log 100

m is a dropout mask. Gate and temperature fold into the weights, ``V_e = exp(t) diag(exp(c_e)) W_e``, so that one
product per (row, expert) remains. With an upstream g and ``h_nj = V_e g_n`` backward needs nothing forward computed:

    d x_n = m_n * sum_j alpha_nj h_nj      d alpha_nj = <m_n * x_n, h_nj> + <b_e, g_n>
    d V_e = sum_{(n,j) to e} alpha_nj (m_n * x_n) g_n^T      d b_e = sum_{(n,j) to e} alpha_nj g_n

Pairs (n, j) are sorted by expert; each expert multiplies its own rows. `experts.cpu` works through chunks of rows, so
that no [N, k, H] tensor exists; `experts.triton` writes one row per pair and adds them in a fixed order.

A sparse x needs neither sort nor products: row n is a bag of rows of the stacked weights [E D, H], the non-zeros of x_n
once per expert, weighted by alpha x. That is one `spmm`, and its gradients are `spmm`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off, autocast_on, lowered, promoted
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.dropout import keyed_dropout
from gkdkernels.core.indices import check_indices_of
from gkdkernels.core.registration import register
from gkdkernels.experts.cpu import backward_cpu, forward_cpu
from gkdkernels.experts.reference import LOG_CAP, expert_linear_reference
from gkdkernels.experts.routing import as_dense, check_features, routing_matrix
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures
from gkdkernels.spmm.op import spmm

DROPOUTS = ("row", "pair")
BACKENDS = declare("expert_linear", "reference", "cpu", "triton")


def expert_linear(
    x: Features,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    *,
    gate: Tensor | None = None,
    log_temperature: Tensor | None = None,
    dropout: float = 0.0,
    key: int | None = None,
    dropout_per: str = "row",
    backend: str = "auto",
) -> Tensor:
    """The weighted sum of each row's experts.

    Args:
        x: [N, D] float, or sparse or mixed features without gradient.
        weight: [E, D, H] of `x`'s dtype, one matrix per expert (``x @ weight[e]``).
        bias: [E, H], or None.
        index: [N, k] int32 or int64, the experts of each row, in [0, E). Checked on the CPU; on a GPU a check would
            wait for the device, and a pair whose expert is out of range is undefined.
        alpha: [N, k] weights, of `x`'s dtype or fp32.
        gate: [E, D] logarithms of an input gate per expert.
        log_temperature: scalar, the logarithm of a factor of the output.
        dropout: probability that an input is dropped; on sparse features that a non-zero is.
        key: seed of the mask, a function of (key, element); needed when `dropout` > 0.
        dropout_per: "row": the experts of a row share its mask. "pair": each (row, slot) has its own, a copy of x per
            slot.
        backend: "auto", "reference" (any device), "cpu" or "triton".

    Returns:
        [N, H] of `x`'s dtype, differentiable once in all float tensors ("reference": any number of times). Two runs are
        bitwise equal. An expert without rows has gradient 0.

    Raises:
        ValueError: an unknown `backend`, a missing key, a sparse x with a gradient, or a wrong value, shape, dtype or
            device.

    Example:
        >>> weight = torch.stack([torch.eye(2), 10 * torch.eye(2)])  # two experts
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> index, alpha = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> expert_linear(x, weight, None, index, alpha)
        tensor([[ 5.5000, 11.0000],
                [30.0000, 40.0000]])
    """
    if autocast_on(weight.device):
        x, weight, bias = _cast(x, weight, bias)
        with autocast_off(weight.device):
            return expert_linear(
                x,
                weight,
                bias,
                index,
                alpha,
                gate=gate,
                log_temperature=log_temperature,
                dropout=dropout,
                key=key,
                dropout_per=dropout_per,
                backend=backend,
            )
    _check(x, weight, bias, index, alpha, gate, log_temperature, dropout, key, dropout_per)
    check_indices_of("index", index, weight.size(0))
    chosen = choose("expert_linear", backend, BACKENDS, weight)
    rows = x
    if dropout > 0 and key is not None:
        rows = _dropped(_repeated(x, index.size(1)) if dropout_per == "pair" else x, dropout, key)
    if chosen == "reference":
        dense = rows if isinstance(rows, Tensor) else as_dense(rows)
        return expert_linear_reference(dense, weight, bias, index, alpha, gate, log_temperature)
    place = index
    if chosen == "cpu" and isinstance(rows, SparseFeatures) and _few(index, weight):
        weight, gate, place = _used(weight, gate, index)
    weight, bias = _folded(weight, bias, gate, log_temperature)
    if isinstance(rows, SparseFeatures):
        return _sparse(rows, weight, bias, index, alpha, chosen, place)
    return _layer(rows, weight, bias, index, alpha, chosen)


def _cast(x: Features, weight: Tensor, bias: Tensor | None) -> tuple[Features, Tensor, Tensor | None]:
    """Under autocast: to its dtype, as a linear layer, where x is dense; to the widest of theirs, as `spmm`, else."""
    if isinstance(x, Tensor):
        x_cast, weight_cast, bias_cast = lowered(x, weight, bias)
        return x if x_cast is None else x_cast, weight if weight_cast is None else weight_cast, bias_cast
    value = x.value if isinstance(x, SparseFeatures) else x.sparse.value
    dense = None if isinstance(x, SparseFeatures) else x.dense
    value_cast, dense_cast, weight_cast, bias_cast = promoted(value, dense, weight, bias)
    if value_cast is not None and value_cast.dtype != value.dtype:
        graph = x.graph if isinstance(x, SparseFeatures) else x.sparse.graph
        sparse = SparseFeatures(graph, value_cast)
        x = sparse if isinstance(x, SparseFeatures) else MixedFeatures(sparse, x.dense)
    if isinstance(x, MixedFeatures) and dense_cast is not None and dense_cast.dtype != x.dense.dtype:
        x = MixedFeatures(x.sparse, dense_cast)
    return x, weight if weight_cast is None else weight_cast, bias_cast


def _few(index: Tensor, weight: Tensor) -> bool:
    """Whether some experts have no row, for sure, and no gradient is asked for: then only the others are folded."""
    return index.numel() < weight.size(0) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _used(weight: Tensor, gate: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Weight and gate of the experts in `index` alone, and where among them each of `index` is."""
    experts, place = index.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return weight.index_select(0, experts), None if gate is None else gate.index_select(0, experts), place


def folded_weight(weight: Tensor, gate: Tensor | None, log_temperature: Tensor | None) -> Tensor:
    """[E, D, H] ``exp(t) diag(exp(c_e)) W_e``, at least fp32 when there is anything to fold."""
    if gate is not None:
        weight = weight.to(accumulation_dtype(weight.dtype)) * gate.clamp(max=LOG_CAP).exp()[:, :, None]
    if log_temperature is not None:
        weight = weight.to(accumulation_dtype(weight.dtype)) * log_temperature.clamp(max=LOG_CAP).exp()
    return weight


def _folded(
    weight: Tensor, bias: Tensor | None, gate: Tensor | None, log_temperature: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if bias is not None and log_temperature is not None:
        bias = (bias.to(accumulation_dtype(bias.dtype)) * log_temperature.clamp(max=LOG_CAP).exp()).to(bias.dtype)
    return folded_weight(weight, gate, log_temperature).to(weight.dtype), bias


def _layer(x: Features, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, backend: str) -> Tensor:
    if isinstance(x, Tensor):
        out: Tensor = _operator(x, weight, bias, index, alpha, backend)
        return out
    if isinstance(x, SparseFeatures):
        return _sparse(x, weight, bias, index, alpha, backend)
    split = x.sparse.shape[1]
    sparse = _sparse(x.sparse, weight[:, :split], None, index, alpha, backend)
    return sparse + _layer(x.dense, weight[:, split:], bias, index, alpha, backend)


def _sparse(
    x: SparseFeatures,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    backend: str,
    place: Tensor | None = None,
) -> Tensor:
    """``x: [N, D]``, or [N k, D] where every pair has its own row; `place`: the experts in `weight`, if not `index`."""
    rows, k = index.shape
    pairs = x.rows(_pair_rows(x, k)) if x.shape[0] == rows else x
    pair, width = pairs.graph.row.long(), pairs.graph.num_src
    at = index if place is None else place
    column = pairs.graph.index + (at.reshape(-1) * width).to(pairs.graph.index.dtype)[pair]
    graph = CSRGraph.trusted(pairs.graph.indptr[::k].contiguous(), column, weight.size(0) * width)
    value = pairs.value * alpha.reshape(-1).to(pairs.value.dtype)[pair]
    out = spmm(graph, weight.reshape(weight.size(0) * width, weight.size(2)), value, backend=backend)
    return (
        out if bias is None else out + (routing_matrix(index, alpha, bias.size(0)) @ bias.to(alpha.dtype)).to(out.dtype)
    )


def _repeated(x: Features, k: int) -> Features:
    """[N k, D] each row of x k times in a row."""
    if k == 1:
        return x
    if isinstance(x, Tensor):
        return x.repeat_interleave(k, 0)
    return x.rows(_pair_rows(x, k))


def _pair_rows(x: Features, k: int) -> Tensor:
    return torch.arange(x.shape[0], device=x.device).repeat_interleave(k)


def _dropped(x: Features, p: float, key: int) -> Features:
    if isinstance(x, Tensor):
        return keyed_dropout(x, p, key)
    if isinstance(x, SparseFeatures):
        return SparseFeatures(x.graph, keyed_dropout(x.value, p, key))
    # the dense columns draw from a stream of their own
    sparse = SparseFeatures(x.sparse.graph, keyed_dropout(x.sparse.value, p, key))
    return MixedFeatures(sparse, keyed_dropout(x.dense, p, key ^ 1))


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, backend: str) -> Tensor:
    if backend == "triton":
        from gkdkernels.experts.triton import forward_triton

        return forward_triton(x, weight, bias, index, alpha)
    return forward_cpu(x, weight, bias, index, alpha)


def _backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "triton":
        from gkdkernels.experts.triton import backward_triton

        return backward_triton(g, x, weight, bias, index, alpha, needs)
    return backward_cpu(g, x, weight, bias, index, alpha, needs)


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor, backend: str) -> Tensor:
    return x.new_empty(index.size(0), weight.size(2))


def _fake_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    wanted = (x, weight, bias, alpha)
    return tuple(
        x.new_empty(0) if t is None or not need else torch.empty(t.shape, dtype=t.dtype, device=t.device)
        for t, need in zip(wanted, needs, strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, index, alpha = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 2, 4)]
    found = _backward_operator(g, x, weight, bias, index, alpha, needs, ctx.backend)
    dx, dweight, dbias, dalpha = (grad if need else None for grad, need in zip(found, needs, strict=True))
    return dx, dweight, dbias, None, dalpha, None


_backward_operator = register(
    "expert_linear_backward(Tensor g, Tensor x, Tensor weight, Tensor? bias, Tensor index, Tensor alpha, "
    "bool[] needs, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    fake=_fake_backward,
)
_operator = register(
    "expert_linear(Tensor x, Tensor weight, Tensor? bias, Tensor index, Tensor alpha, str backend) -> Tensor",
    _forward,
    fake=_fake_forward,
    setup_context=_save,
    backward=_gradients,
)


def _check(
    x: Features,
    weight: Tensor,
    bias: Tensor | None,
    index: Tensor,
    alpha: Tensor,
    gate: Tensor | None,
    log_temperature: Tensor | None,
    dropout: float,
    key: int | None,
    dropout_per: str,
) -> None:
    check_features(x)
    if weight.dim() != 3 or weight.size(1) != x.shape[1] or weight.size(0) == 0:
        raise ValueError(f"weight: expected shape [E, {x.shape[1]}, H] with E >= 1, got {tuple(weight.shape)}")
    experts, width, out = weight.shape
    if index.dim() != 2 or index.size(0) != x.shape[0] or index.size(1) == 0:
        raise ValueError(f"index: expected shape [{x.shape[0]}, k] with k >= 1, got {tuple(index.shape)}")
    if index.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"index: expected int32 or int64, got {index.dtype}")
    dtype = x.dtype if isinstance(x, Tensor) else weight.dtype
    if isinstance(x, MixedFeatures) and x.dense.dtype != weight.dtype:
        raise ValueError(f"weight: expected {x.dense.dtype} like x, got {weight.dtype}")
    value = None if isinstance(x, Tensor) else x.value if isinstance(x, SparseFeatures) else x.sparse.value
    if value is not None and value.dtype != weight.dtype:
        raise ValueError(f"weight: expected {value.dtype} like x, got {weight.dtype}")
    shapes = {
        "weight": (weight, tuple(weight.shape), (dtype,)),
        "bias": (bias, (experts, out), (dtype,)),
        "alpha": (alpha, tuple(index.shape), (dtype, accumulation_dtype(dtype))),
        "gate": (gate, (experts, width), (dtype, accumulation_dtype(dtype))),
        "log_temperature": (log_temperature, (), (dtype, accumulation_dtype(dtype))),
        "index": (index, tuple(index.shape), (index.dtype,)),
    }
    for name, (tensor, shape, dtypes) in shapes.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype not in dtypes or tensor.device != x.device:
            raise ValueError(
                f"{name}: expected {dtypes[0]} on {x.device} like x, got {tensor.dtype} on {tensor.device}"
            )
    if dropout_per not in DROPOUTS:
        raise ValueError(f"dropout_per: expected one of {', '.join(DROPOUTS)}, got {dropout_per!r}")
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
    if dropout > 0 and key is None:
        raise ValueError("key: expected a seed when dropout > 0, got None")
