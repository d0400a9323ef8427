"""Operators under `torch.autocast`: their inputs are cast as torch casts those of its own, and nothing inside them is.

Operators whose result is a sum of products of features and a few weights take the widest dtype of their inputs, as
`torch.addcmul` does (`promoted`); those that are matrix products take autocast's own, as `torch.nn.functional.linear`
does (`lowered`). fp64 is left alone, as torch leaves it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

_DEVICES = ("cpu", "cuda")


def autocast_on(device: torch.device) -> bool:
    """Whether `torch.autocast` is on for tensors of `device`."""
    return device.type in _DEVICES and torch.is_autocast_enabled(device.type)


def autocast_off(device: torch.device) -> torch.autocast:
    """Nothing on `device` is cast inside."""
    return torch.autocast(device.type, enabled=False)


def promoted(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The floating-point ones among `tensors` in the widest of their dtypes; as they are if one is fp64.

    None stays None.
    """
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None and tensor.is_floating_point()}
    if len(dtypes) < 2 or torch.float64 in dtypes:
        return tensors
    widest = functools.reduce(torch.promote_types, dtypes)
    return tuple(_cast(tensor, widest) for tensor in tensors)


def lowered(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The floating-point ones among `tensors` in autocast's dtype of their device; as they are if one is fp64.

    None stays None.
    """
    found = [tensor for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    if not found or any(tensor.dtype == torch.float64 for tensor in found):
        return tensors
    dtype = torch.get_autocast_dtype(found[0].device.type)
    return tuple(_cast(tensor, dtype) for tensor in tensors)


def shielded(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with autocast off inside."""

    @functools.wraps(run)
    def plain(*arguments: Any, **named: Any) -> Any:
        on = [kind for kind in _DEVICES if torch.is_autocast_enabled(kind)]
        if not on:
            return run(*arguments, **named)
        with ExitStack() as stack:
            for kind in on:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return run(*arguments, **named)

    return plain


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor.to(dtype) if tensor is not None and tensor.is_floating_point() else tensor
