"""Linear layers with explicit randomness; the first layer multiplies sparse features by their non-zeros only."""

from __future__ import annotations

import math

import torch
from gkdkernels import Features, MixedFeatures, SparseFeatures, keyed_dropout, matrix_product, spmm
from torch import Tensor, nn

from gkdbench.nn.random import Randomness

WIDE = 2048
"""Wider dense inputs are bags of words, for which another library is faster; hidden layers are never wider, and keep
torch's product, on whose last bits published results depend."""


class FeatureLinear(nn.Module):
    """``x W + b`` for dense, sparse and mixed features.

    A sparse x is a CSR matrix: the product is `spmm`, whose cost is nnz * out instead of N * in * out.

    Args:
        in_features, out_features: widths.
        name: of the layer; keys its initial values.
        randomness: where they are drawn from.
        bias: whether there is one.
        init: "glorot" (uniform, zero bias; Glorot & Bengio 2010) or "torch" (`nn.Linear`: U(+-in^-1/2), bias too).
        gain: factor of the Glorot bound.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        name: str,
        randomness: Randomness,
        bias: bool = True,
        init: str = "glorot",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        fan = (in_features + out_features) / 6 if init == "glorot" else in_features
        bound = gain / math.sqrt(max(fan, 1e-12))
        self.weight = nn.Parameter(uniform((in_features, out_features), bound, randomness, f"{name}.weight"))
        self.bias: nn.Parameter | None = None
        if bias:
            limit = 0.0 if init == "glorot" else bound
            self.bias = nn.Parameter(uniform((out_features,), limit, randomness, f"{name}.bias"))

    def forward(self, x: Features) -> Tensor:
        """[N, out] ``x W + b`` from ``x: [N, in]``."""
        if isinstance(x, Tensor) and x.size(1) <= WIDE and self.bias is not None:
            return torch.addmm(self.bias, x, self.weight)
        return self.shifted(feature_product(x, self.weight))

    def shifted(self, y: Tensor) -> Tensor:
        """``y + b``."""
        return y if self.bias is None else y + self.bias


def feature_product(x: Features, weight: Tensor) -> Tensor:
    """[N, out] ``x W`` of features [N, in] and ``weight: [in, out]``."""
    if isinstance(x, Tensor):
        return x @ weight if x.size(1) <= WIDE else matrix_product(x, weight)
    if isinstance(x, SparseFeatures):
        return spmm(x.graph, weight, x.value)
    split = x.sparse.shape[1]
    return spmm(x.sparse.graph, weight[:split], x.sparse.value) + x.dense @ weight[split:]


def uniform(shape: tuple[int, ...], bound: float, randomness: Randomness, name: str) -> Tensor:
    """Values of U(-bound, bound), keyed by the parameter's `name`."""
    return torch.empty(shape).uniform_(-bound, bound, generator=randomness.initial(name))


def dropout_features(x: Features, p: float, key: int) -> Features:
    """Dropout on the entries of `x`; on a sparse matrix on its non-zeros, which is the same distribution."""
    if p == 0.0:
        return x
    if isinstance(x, Tensor):
        return keyed_dropout(x, p, key)
    if isinstance(x, SparseFeatures):
        return SparseFeatures(x.graph, keyed_dropout(x.value, p, key))
    # the dense columns draw from a stream of their own
    dense = keyed_dropout(x.dense, p, key ^ 1)
    return MixedFeatures(SparseFeatures(x.sparse.graph, keyed_dropout(x.sparse.value, p, key)), dense)
