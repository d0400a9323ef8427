"""Matrix products in fp32 on CPUs.

torch hands them to MKL, which keeps to 256-bit vectors on processors that are not Intel's. oneDNN, which torch ships,
too, looks at what the processor can do: with AVX-512 on an AMD EPYC it is twice as fast, 2.5 times on tall, narrow
results. Elsewhere, and for what oneDNN does not know, a product here is torch's own.

Both round differently: the last bits of a result depend on which of them ran.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.registration import register


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """``a b``, differentiable any number of times.

    Args:
        a: [M, K], any strides.
        b: [K, N] of `a`'s dtype and device, any strides.

    Raises:
        ValueError: other shapes, dtypes or devices.
    """
    if a.dim() != 2 or b.dim() != 2 or a.size(1) != b.size(0):
        raise ValueError(f"a and b: expected shapes [M, K] and [K, N], got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(f"b: expected {a.dtype} on {a.device} like a, got {b.dtype} on {b.device}")
    out: Tensor = _operator(a, b)
    return out


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a b``, plus ``bias: [N]`` in every row; no checks, no autograd.

    oneDNN writes code for each new shape, which takes a millisecond: callers whose shapes vary round them up.
    """
    fits = a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() > 0 and b.numel() > 0
    if fits and _onednn() and torch.backends.mkldnn.enabled:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
        return out
    return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


@cache
def _onednn() -> bool:
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.size(0), b.size(1))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    of_a, of_b = ctx.needs_input_grad
    # g^T a and not a^T g: the long side of a wide matrix is read in its own order
    return _operator(g, b.t()) if of_a else None, _operator(g.t(), a).t() if of_b else None


_operator = register(
    "matrix_product(Tensor a, Tensor b) -> Tensor",
    multiply,
    fake=_fake,
    setup_context=_save,
    backward=_gradients,
    transforms=True,
)
