"""Scalable inception graph network: an MLP on features of several depths of propagation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, gcn_weight, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import feature_product, uniform
from gkdbench.nn.mlp import MLP, MLPConfig
from gkdbench.nn.model import Model, StackedBackbone, Trace, check_range, need_graph
from gkdbench.nn.parts import ACTIVATIONS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class SIGNConfig(StackedBackbone):
    """An MLP on ``[X, A_hat X, ..., A_hat^hops X]`` (Frasca et al. 2020, eq. 4).

    The first layer is computed as ``X W_0 + A_hat (X W_1 + A_hat (X W_2 + ...))``, to the same value: propagated
    bag-of-words features are dense, what the layer makes of them is `hidden` wide.

    Args:
        hops: powers of A_hat next to the features themselves.
        hidden, layers, dropout, norm, activation: of the MLP, as in `MLPConfig`.
    """

    name: ClassVar[str] = "sign"
    paper: ClassVar[str] = "Frasca et al., SIGN: Scalable Inception Graph Neural Networks, ICML 2020 workshop"
    revision: ClassVar[int] = 1

    hops: int = 3
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.5
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        check_range(self, "hops", 1)
        check_range(self, "layers", 1)
        self.rest()

    def rest(self) -> MLPConfig:
        """The layers after the first."""
        layers = max(self.layers - 1, 1)
        return MLPConfig(
            hidden=self.hidden, layers=layers, dropout=self.dropout, norm=self.norm, activation=self.activation
        )

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return SIGN(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        inner = sum(a * b for a, b in pairwise(widths[1:]))
        return (nnz * (self.hops + 1) + num_edges * self.hops) * widths[1] + num_nodes * inner


class SIGN(Model):
    """The module of `SIGNConfig`; weights as in `nn.Linear` on the concatenated features."""

    def __init__(self, config: SIGNConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        width = config.widths(in_features, out_features)[1]
        blocks, self.hops = config.hops + 1, config.hops
        bound = 1 / math.sqrt(max(blocks * in_features, 1))
        self.weight = nn.Parameter(uniform((in_features, blocks * width), bound, randomness, "first.weight"))
        self.bias = nn.Parameter(uniform((width,), bound, randomness, "first.bias"))
        self.norm, self.rest = None, None
        if config.layers > 1:
            self.norm = norm_layer(config.norm, width)
            self.rest = MLP(config.rest(), width, out_features, randomness)
        self.dropout = KeyedDropout(config.dropout, name="first.dropout", randomness=randomness)
        self.activation = ACTIVATIONS[config.activation]

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        first = self._first(x, need_graph(graph, "SIGN"))
        if self.norm is None or self.rest is None:
            return Trace(first, ())
        hidden: Tensor = self.norm(first)
        rest = self.rest.node_trace(self.dropout(self.activation(hidden)), None)
        return Trace(rest.logits, (hidden, *rest.hidden))

    def _first(self, x: Features, graph: CSRGraph) -> Tensor:
        """[N, width] ``sum_k A_hat^k x W_k + b``, innermost power first."""
        *outer, y = torch.chunk(feature_product(x, self.weight), self.hops + 1, dim=1)
        weight = gcn_weight(graph, y.dtype)
        for own in reversed(outer):
            y = own + spmm(graph, y.contiguous(), weight)
        return y + self.bias

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.bias]
