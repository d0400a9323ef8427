"""Graph convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, gcn_weight, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import BlockModel, StackedBackbone, Trace, check_choice, check_range
from gkdbench.nn.parts import ACTIVATIONS, NORMS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class GCN(StackedBackbone):
    """``H' = act(norm(A_hat H W + b))`` with symmetric normalisation of the graph as given.

    Args:
        hidden: width of the hidden layers.
        layers: number of convolutions.
        dropout: on the input of every layer but the first.
        input_dropout: whether the features are dropped too (Kipf & Welling: yes; GLNN's teacher: no).
        bias: whether convolutions have one (Kipf & Welling's release: no).
        norm: between convolution and activation.
        activation: between layers.
        residual: adds a linear skip to each hidden layer.
    """

    name: ClassVar[str] = "gcn"
    paper: ClassVar[str] = "Kipf & Welling, Semi-Supervised Classification with Graph Convolutional Networks, ICLR 2017"
    revision: ClassVar[int] = 1

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    input_dropout: bool = True
    bias: bool = True
    norm: Norm = "none"
    activation: Activation = "relu"
    residual: bool = False

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "norm", NORMS)
        check_choice(self, "activation", tuple(ACTIVATIONS))

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> BlockModel:
        return GCNModel(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        total = 0
        for layer, (a, b) in enumerate(pairwise(widths)):
            linear = nnz * b if layer == 0 else num_nodes * a * b
            skip = self.residual and layer < self.layers - 1
            sparse = layer == 0 and nnz < num_nodes * a
            total += linear * (2 if skip else 1) + num_edges * (b if sparse else min(a, b))
        return total


class GraphConv(nn.Module):
    """``A_hat x W + b``; Glorot weights, zero bias."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, name: str, randomness: Randomness) -> None:
        super().__init__()
        self.linear = FeatureLinear(in_features, out_features, name=f"{name}.linear", randomness=randomness, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.out_features = out_features

    def forward(self, x: Features, graph: CSRGraph) -> Tensor:
        """[num_dst, out] from ``x: [num_src, in]``."""
        weight = gcn_weight(graph, self.linear.weight.dtype)
        if isinstance(x, Tensor) and x.size(1) < self.out_features:  # associative: aggregate at the narrower width
            y: Tensor = self.linear(spmm(graph, x, weight))
        else:
            y = spmm(graph, self.linear(x), weight)
        return y if self.bias is None else y + self.bias


class GCNModel(BlockModel):
    """The module of `GCN`."""

    def __init__(self, config: GCN, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        widths = config.widths(in_features, out_features)
        self.depth, inner = config.layers, widths[1:-1]
        self.convs = nn.ModuleList(
            GraphConv(a, b, bias=config.bias, name=f"convs.{i}", randomness=randomness)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in inner)
        self.dropouts = nn.ModuleList(
            KeyedDropout(
                config.dropout if i > 0 or config.input_dropout else 0.0, name=f"dropouts.{i}", randomness=randomness
            )
            for i in range(config.layers)
        )
        self.skips = nn.ModuleList(
            FeatureLinear(a, b, name=f"skips.{i}", randomness=randomness)
            for i, (a, b) in enumerate(zip(widths, inner, strict=False))
            if config.residual
        )
        self.activation = ACTIVATIONS[config.activation]

    def block_trace(self, x: Features, blocks: Sequence[CSRGraph]) -> Trace:
        hidden = []
        for layer, (conv, dropout, block) in enumerate(zip(self.convs, self.dropouts, blocks, strict=True)):
            x = dropout(x)
            out = conv(x, block)
            if layer == self.depth - 1:
                break
            if self.skips:
                out = out + self.skips[layer](x)[: block.num_dst]
            hidden.append(self.norms[layer](out))
            x = self.activation(hidden[-1])
        return Trace(out, tuple(hidden))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.convs[0].parameters())
