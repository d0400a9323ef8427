"""Small parts that backbones share: norms, activations, keyed dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import torch
import torch.nn.functional as F
from gkdkernels import Features
from torch import Tensor, nn

from gkdbench.nn.linear import dropout_features
from gkdbench.nn.random import Randomness

Norm = Literal["none", "batch", "layer"]
Activation = Literal["relu", "elu", "tanh"]
NORMS: tuple[Norm, ...] = ("none", "batch", "layer")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu, "tanh": torch.tanh}


def norm_layer(kind: Norm, width: int) -> nn.Module:
    """The norm called `kind` over [N, width]; "none" is the identity."""
    if kind == "batch":
        return BatchNorm(width)
    return nn.LayerNorm(width) if kind == "layer" else nn.Identity()


class BatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d``, but a single row, which has no variance, is normalised by the running moments, and they stay
    as they are: one labelled item, or the one that a mini-batch leaves over."""

    def forward(self, input: Tensor) -> Tensor:
        """[M, D] from ``input: [M, D]``."""
        if self.training and input.size(0) == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class KeyedDropout(nn.Module):
    """Dropout whose mask is keyed by (seed, peer, name, step); the identity in eval mode."""

    def __init__(self, p: float, *, name: str, randomness: Randomness) -> None:
        super().__init__()
        self.p, self.name, self.randomness = p, name, randomness

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Features) -> Features: ...

    def forward(self, x: Features) -> Features:
        """`x` with entries (non-zeros of a sparse matrix) dropped."""
        if not self.training or self.p == 0.0:
            return x
        return dropout_features(x, self.p, self.randomness.key(self.name))
