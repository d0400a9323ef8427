"""GraphSAGE with the mean aggregators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from gkdkernels import CSRGraph, Features, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import BlockModel, StackedBackbone, Trace, check_choice, check_range
from gkdbench.nn.parts import ACTIVATIONS, NORMS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness

RELU_GAIN = 2.0**0.5


@dataclass(frozen=True, kw_only=True)
class SAGEConfig(StackedBackbone):
    """GraphSAGE, full batch or on sampled blocks.

    Args:
        hidden: width of the hidden layers.
        layers: number of convolutions.
        aggregator: "gcn", ``W (sum_j h_j + h_i) / (deg_i + 1)``; "mean", ``W_self h_i + W mean_j h_j``.
        dropout: after each activation; the input is not dropped.
        norm: between convolution and activation.
        activation: between layers.
        residual: adds a linear skip to each hidden layer.
    """

    name: ClassVar[str] = "sage"
    paper: ClassVar[str] = "Hamilton, Ying & Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017"
    revision: ClassVar[int] = 1

    hidden: int = 128
    layers: int = 2
    aggregator: Literal["gcn", "mean"] = "gcn"
    dropout: float = 0.0
    norm: Norm = "none"
    activation: Activation = "relu"
    residual: bool = False

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "aggregator", ("gcn", "mean"))
        check_choice(self, "norm", NORMS)
        check_choice(self, "activation", tuple(ACTIVATIONS))

    @property
    def hops(self) -> int:
        return self.layers

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> BlockModel:
        return SAGE(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        total = 0
        for layer, (a, b) in enumerate(pairwise(widths)):
            products = 1 + (self.aggregator == "mean") + (self.residual and layer < self.layers - 1)
            sparse = layer == 0 and nnz < num_nodes * a
            total += products * (nnz * b if layer == 0 else num_nodes * a * b)
            total += num_edges * (b if sparse else min(a, b))
        return total


class SAGELayer(nn.Module):
    """One aggregation with its linear maps; Glorot weights with ReLU's gain, zero bias."""

    def __init__(
        self, in_features: int, out_features: int, aggregator: str, *, name: str, randomness: Randomness
    ) -> None:
        super().__init__()

        def linear(part: str) -> FeatureLinear:
            return FeatureLinear(
                in_features, out_features, name=f"{name}.{part}", randomness=randomness, bias=False, gain=RELU_GAIN
            )

        self.neighbours = linear("neighbours")
        self.self_loop = linear("self_loop") if aggregator == "mean" else None
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Features, graph: CSRGraph) -> Tensor:
        """[num_dst, out] from ``x: [num_src, in]``; destinations are the first rows of the sources."""
        narrow = isinstance(x, Tensor) and x.size(1) < self.bias.numel()  # linear: aggregate at the narrower width
        y = self._aggregate(x if isinstance(x, Tensor) and narrow else self.neighbours(x), graph)
        if narrow:
            y = self.neighbours(y)
        if self.self_loop is not None:
            own = x[: graph.num_dst] if isinstance(x, Tensor) else x
            y = y + self.self_loop(own)[: graph.num_dst]
        return y + self.bias

    def _aggregate(self, x: Tensor, graph: CSRGraph) -> Tensor:
        if self.self_loop is not None:
            return spmm(graph, x, reduce="mean")
        return (spmm(graph, x) + x[: graph.num_dst]) / (graph.degree + 1).to(x.dtype)[:, None]


class SAGE(BlockModel):
    """The module of `SAGEConfig`."""

    def __init__(self, config: SAGEConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        widths = config.widths(in_features, out_features)
        self.depth, inner = config.layers, widths[1:-1]
        self.convs = nn.ModuleList(
            SAGELayer(a, b, config.aggregator, name=f"convs.{i}", randomness=randomness)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in inner)
        self.dropouts = nn.ModuleList(
            KeyedDropout(config.dropout, name=f"dropouts.{i}", randomness=randomness) for i in range(config.layers - 1)
        )
        self.skips = nn.ModuleList(
            FeatureLinear(a, b, name=f"skips.{i}", randomness=randomness)
            for i, (a, b) in enumerate(zip(widths, inner, strict=False))
            if config.residual
        )
        self.activation = ACTIVATIONS[config.activation]

    def block_trace(self, x: Features, blocks: Sequence[CSRGraph]) -> Trace:
        hidden = []
        for layer, (conv, block) in enumerate(zip(self.convs, blocks, strict=True)):
            out = conv(x, block)
            if layer == self.depth - 1:
                break
            if self.skips:
                out = out + self.skips[layer](x)[: block.num_dst]
            hidden.append(self.norms[layer](out))
            x = self.dropouts[layer](self.activation(hidden[-1]))
        return Trace(out, tuple(hidden))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.convs[0].parameters())
