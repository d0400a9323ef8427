"""Dropout whose mask is a function of a key and of the element, and of nothing else."""

from __future__ import annotations

import torch
from torch import Tensor


def keyed_mask(shape: torch.Size, p: float, key: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A dropout mask: 0 with probability `p`, else ``1 / (1 - p)``; the global generator is untouched.

    Args:
        shape: of the mask; an element's draw depends on its position in row-major order.
        p: in [0, 1].
        key: non-negative, below 2^63.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p wants a probability in [0, 1], got {p}")
    mask = torch.empty(shape, dtype=dtype, device=device)
    if p in (0.0, 1.0):
        return mask.fill_(1.0 - p)
    generator = torch.Generator(device).manual_seed(key)
    return mask.bernoulli_(1.0 - p, generator=generator).mul_(1.0 / (1.0 - p))


def keyed_dropout(x: Tensor, p: float, key: int) -> Tensor:
    """Dropout (Srivastava et al. 2014, inverted) with the mask of ``(key, element)``.

    Args:
        x: any shape, float.
        p: probability of a zero, in [0, 1]; 0 returns `x` itself.
        key: seed of the mask, non-negative, below 2^63.
    """
    if p == 0.0:
        return x
    return x * keyed_mask(x.shape, p, key, dtype=x.dtype, device=x.device)
