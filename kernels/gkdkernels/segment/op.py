"""Readouts over contiguous segments: the nodes of graph g are rows ``ptr[g]:ptr[g + 1]``.

`reference.py` has the formulas in plain torch, which are also the CPU's path; `segment.triton` has the kernels.
Backward needs none for sums and maxima: each row receives its segment's gradient, or the row that won does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gkdkernels.core.derivatives import Link, apply_once, link_to, once
from gkdkernels.core.dispatch import accumulation_dtype, choose, declare
from gkdkernels.core.indices import raise_flagged
from gkdkernels.core.registration import register
from gkdkernels.segment.reference import segment_max_reference, segment_softmax_reference, segment_sum_reference

_BACKENDS = ("reference", "triton")
for _name in ("segment_sum", "segment_mean", "segment_max", "segment_softmax"):
    declare(_name, *_BACKENDS)


def segment_sum(x: Tensor, ptr: Tensor, *, backend: str = "auto") -> Tensor:
    """[G, D] sums of the rows of each segment; empty segments give 0.

    Args:
        x: [N, D] float.
        ptr: [G + 1] int, non-decreasing, from 0 to N.
        backend: "auto", "reference" (any device), or "triton" (differentiable once). fp16 and bf16 are summed up, and
            divided, in fp32.

    Raises:
        ValueError: an unknown `backend`, or a wrong shape, dtype, device or order of `ptr`.

    Example:
        >>> x, ptr = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 2, 3])  # rows 0 and 1, then row 2
        >>> segment_sum(x, ptr).flatten()
        tensor([4., 5.])
    """
    ptr = ptr.contiguous()  # kernels read it by address
    segment = _segment(x, ptr)
    if choose("segment_sum", backend, _BACKENDS, x) == "triton":
        y: Tensor = apply_once("segment_sum", _Sum, x, ptr, segment, link_to(x))
        return y
    return segment_sum_reference(x, ptr, segment)


def segment_mean(x: Tensor, ptr: Tensor, *, backend: str = "auto") -> Tensor:
    """[G, D] means of the rows of each segment; empty segments give 0. Arguments as `segment_sum`.

    Example:
        >>> x, ptr = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 2, 3])  # rows 0 and 1, then row 2
        >>> segment_mean(x, ptr).flatten()
        tensor([2., 5.])
    """
    wide = accumulation_dtype(x.dtype) if x.is_floating_point() else x.dtype
    # a sum of halves, and a count of rows, may not fit where the mean does
    total = segment_sum(x.to(wide), ptr, backend=backend)
    return (total / ptr.diff().clamp(min=1).to(wide)[:, None]).to(x.dtype)


def segment_max(x: Tensor, ptr: Tensor, *, backend: str = "auto") -> Tensor:
    """[G, D] largest entry of each segment and column; ties to the lowest row, empty segments give 0.

    Arguments as `segment_sum`.

    Example:
        >>> x, ptr = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 2, 3])  # rows 0 and 1, then row 2
        >>> segment_max(x, ptr).flatten()
        tensor([3., 5.])
    """
    ptr = ptr.contiguous()  # kernels read it by address
    segment = _segment(x, ptr)
    if choose("segment_max", backend, _BACKENDS, x) == "triton":
        y: Tensor = apply_once("segment_max", _Max, x, ptr, link_to(x))
        return y
    return segment_max_reference(x, ptr, segment)


def segment_softmax(x: Tensor, ptr: Tensor, *, backend: str = "auto") -> Tensor:
    """[N, D] softmax of each column within each segment. Arguments as `segment_sum`.

    Example:
        >>> x, ptr = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 2, 3])  # rows 0 and 1, then row 2
        >>> segment_softmax(x, ptr).flatten()
        tensor([0.1192, 0.8808, 1.0000])
    """
    ptr = ptr.contiguous()  # kernels read it by address
    segment = _segment(x, ptr)
    if choose("segment_softmax", backend, _BACKENDS, x) == "triton":
        return softmax_of_segments("segment_softmax", x, ptr)
    return segment_softmax_reference(x, ptr, segment)


def softmax_of_segments(operator: str, x: Tensor, ptr: Tensor) -> Tensor:
    """`segment_softmax` by triton, of arguments that were checked; `operator` is the name in messages."""
    y: Tensor = apply_once(operator, _Softmax, x, ptr, link_to(x))
    return y


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ptr: Tensor, segment: Tensor, link: Link | None) -> Tensor:
        ctx.save_for_backward(segment)
        ctx.link = link
        y: Tensor = _kernel("segment_sum", x, ptr)
        return y

    @staticmethod
    @once("segment_sum")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (segment,) = ctx.saved_tensors
        return g.index_select(0, segment), None, None, None


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ptr: Tensor, link: Link | None) -> Tensor:
        ctx.link = link
        y, row = _kernel("segment_max", x, ptr)
        ctx.save_for_backward(row)
        ctx.rows = x.size(0)
        top: Tensor = y
        return top

    @staticmethod
    @once("segment_max")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (row,) = ctx.saved_tensors
        # a spare last row takes what empty segments send; no other element is written twice
        grad = g.new_zeros(ctx.rows + 1, g.size(1)).scatter_(0, torch.where(row < 0, ctx.rows, row), g)
        return grad[: ctx.rows], None, None


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ptr: Tensor, link: Link | None) -> Tensor:
        ctx.link = link
        y: Tensor = _kernel("segment_softmax", x, ptr)
        ctx.save_for_backward(y, ptr)
        return y

    @staticmethod
    @once("segment_softmax")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        y, ptr = ctx.saved_tensors
        return _kernel("segment_softmax_gradient", y, g, ptr), None, None


def _kernel(name: str, *tensors: Tensor) -> Any:
    """A function of `segment.triton`, run at once or seen by `torch.compile` as one call."""
    return (_COMPILED[name] if torch.compiler.is_compiling() else _late(name))(*tensors)


def _late(name: str) -> Callable[..., Any]:
    def run(*tensors: Tensor) -> Any:
        from gkdkernels.segment import triton as readout_triton

        return getattr(readout_triton, name)(*tensors)

    return run


def _like_segments(x: Tensor, ptr: Tensor) -> Tensor:
    return x.new_empty(ptr.numel() - 1, x.size(1))


_COMPILED = {
    name: register(f"{name}{signature}", _late(name), fake=fake)
    for name, signature, fake in (
        ("segment_sum", "(Tensor x, Tensor ptr) -> Tensor", _like_segments),
        (
            "segment_max",
            "(Tensor x, Tensor ptr) -> (Tensor, Tensor)",
            lambda x, ptr: (_like_segments(x, ptr), _like_segments(x, ptr).long()),
        ),
        ("segment_softmax", "(Tensor x, Tensor ptr) -> Tensor", lambda x, ptr: x.new_empty(x.shape)),
        (
            "segment_softmax_gradient",
            "(Tensor y, Tensor g, Tensor ptr) -> Tensor",
            lambda y, g, ptr: y.new_empty(y.shape),
        ),
    )
}


def _segment(x: Tensor, ptr: Tensor) -> Tensor:
    """[N] int64 segment of each row, after a check of the arguments."""
    if x.dim() != 2:
        raise ValueError(f"x: expected shape [N, D], got {tuple(x.shape)}")
    if ptr.dim() != 1 or ptr.numel() == 0 or ptr.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ptr: expected shape [G + 1] of int32 or int64, got {tuple(ptr.shape)} of {ptr.dtype}")
    if ptr.device != x.device:
        raise ValueError(f"ptr: expected {x.device}, the device of x, got {ptr.device}")
    if ptr.device.type != "cpu" and not torch.compiler.is_compiling():
        raise_flagged(ptr.device)  # below the device is waited for
    size = ptr.diff()
    compiling = torch.compiler.is_compiling()  # values are not known then
    if not compiling and (int(ptr[0]) != 0 or int(ptr[-1]) != x.size(0) or bool((size < 0).any())):
        raise ValueError(f"ptr: expected values rising from 0 to N={x.size(0)}, got {int(ptr[0])}..{int(ptr[-1])}")
    graphs = torch.arange(ptr.numel() - 1, device=x.device)
    return torch.repeat_interleave(graphs, size.long(), output_size=x.size(0))
