"""What is kept on a graph or on features for later calls is made as plain tensors, whatever mode the first call ran in.

A tensor that is made in inference mode can never be saved for a gradient, and one that is made inside a transform of
`torch.func` belongs to that transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

_Made = TypeVar("_Made")
_no_transforms: Callable[[], AbstractContextManager[Any]] = getattr(torch._C, "_DisableFuncTorch", nullcontext)


def to_keep(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """Decorator of what makes something to be kept: no inference mode, no recording, no transform is on."""

    @functools.wraps(make)
    def run(*arguments: Any, **named: Any) -> _Made:
        if torch.compiler.is_compiling():
            return make(*arguments, **named)
        with torch.inference_mode(False), torch.no_grad(), _no_transforms():
            return make(*arguments, **named)

    return run


@to_keep
def plain(tensor: Tensor) -> Tensor:
    """`tensor`, contiguous and no inference tensor: itself where it is so already, else a copy."""
    return tensor.clone() if tensor.is_inference() else tensor.contiguous()
