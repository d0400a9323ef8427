"""Graph convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, gcn_weight, segment_mean, spmm
from torch import Tensor, nn

from gkdbench.nn.edges import edge_linear, edge_sums
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import (
    OMIT_FROM_KEY_AT_DEFAULT,
    BlockModel,
    EdgeBackbone,
    StackedBackbone,
    Trace,
    check_choice,
    check_range,
    need_graph,
)
from gkdbench.nn.parts import ACTIVATIONS, NORMS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.pooling import POOLINGS, Pooling, Readout
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class GCNConfig(StackedBackbone, EdgeBackbone):
    """``H' = act(norm(A_hat H W + b))`` with symmetric normalisation of the graph as given.

    Where edges have features, ``A_hat H W`` becomes ``sum_j a_ij (h_j W + e_ij V)`` (see `EdgeBackbone`).

    Args:
        hidden: width of the hidden layers.
        layers: number of convolutions.
        dropout: on the input of every layer but the first.
        input_dropout: whether the features are dropped too (Kipf & Welling: yes; GLNN's teacher: no).
        bias: whether convolutions have one (Kipf & Welling's official code: no).
        norm: between convolution and activation.
        activation: between layers.
        residual: adds a linear skip to each hidden layer.
        readout: every convolution is a hidden layer, and a linear head reads what this makes of a graph's nodes;
            None: the last convolution gives logits, of which a graph takes the mean.
        self_loops: normalise ``A + I`` instead, for graphs that come without loops.
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
    readout: Pooling | None = field(default=None, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    self_loops: bool = field(default=False, metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "norm", NORMS)
        check_choice(self, "activation", tuple(ACTIVATIONS))
        if self.readout is not None:
            check_choice(self, "readout", POOLINGS)

    @property
    def hops(self) -> int:
        return self.layers

    def build_with_edges(
        self, in_features: int, out_features: int, edge_width: int, randomness: Randomness
    ) -> BlockModel:
        return GCN(self, in_features, out_features, edge_width, randomness)

    def edge_macs(self, edge_width: int, num_nodes: int, num_edges: int) -> int:
        return edge_width * (num_edges + num_nodes * sum(self.convolutions(0, self.hidden)[1:]))

    def convolutions(self, in_features: int, out_features: int) -> list[int]:
        """Widths from input to the last convolution's output, ``layers + 1`` of them."""
        return self.widths(in_features, out_features if self.readout is None else self.hidden)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.convolutions(in_features, out_features)
        # the head is counted once per node: an upper bound where one graph has many
        total = 0 if self.readout is None else num_nodes * self.hidden * out_features
        num_edges += num_nodes * self.self_loops
        for layer, (a, b) in enumerate(pairwise(widths)):
            linear = nnz * b if layer == 0 else num_nodes * a * b
            skip = self.residual and (layer < self.layers - 1 or self.readout is not None)
            sparse = layer == 0 and nnz < num_nodes * a
            total += linear * (2 if skip else 1) + num_edges * (b if sparse else min(a, b))
        return total


class GraphConv(nn.Module):
    """``A_hat x W + b``; Glorot weights, zero bias."""

    def __init__(
        self,
        config: GCNConfig,
        in_features: int,
        out_features: int,
        edge_width: int,
        *,
        name: str,
        randomness: Randomness,
    ) -> None:
        super().__init__()
        self.linear = FeatureLinear(in_features, out_features, name=f"{name}.linear", randomness=randomness, bias=False)
        self.edges = edge_linear(edge_width, out_features, name=name, randomness=randomness)
        self.bias = nn.Parameter(torch.zeros(out_features)) if config.bias else None
        self.out_features, self.self_loops = out_features, config.self_loops

    def forward(self, x: Features, graph: CSRGraph, edges: Tensor | None = None) -> Tensor:
        """[num_dst, out] from ``x: [num_src, in]`` and the weighted sums of edge features [num_dst, edge_width]."""
        if isinstance(x, Tensor) and x.size(1) < self.out_features:  # associative: aggregate at the narrower width
            y: Tensor = self.linear(self.aggregate(graph, x))
        else:
            y = self.aggregate(graph, self.linear(x))
        if self.edges is not None and edges is not None:
            y = y + self.edges(edges)
        return y if self.bias is None else y + self.bias

    def aggregate(self, graph: CSRGraph, x: Tensor) -> Tensor:
        """[num_dst, D] ``A_hat x``."""
        if not self.self_loops:
            return spmm(graph, x, gcn_weight(graph, x.dtype))
        root = looped_roots(graph, x.dtype)[:, None]
        scaled = root * x
        return root * (spmm(graph, scaled) + scaled)


def looped_roots(graph: CSRGraph, dtype: torch.dtype) -> Tensor:
    """[N] ``(degree + 1)^-1/2``; ``A_hat`` of a graph with a loop at every node is their outer product on A + I."""
    if graph.num_src != graph.num_dst:
        raise ValueError("self_loops: expected a square graph, got a sampled block, which has the loops of its graph")
    return (graph.degree.to(dtype) + 1).rsqrt()


class GCN(BlockModel):
    """The module of `GCNConfig`."""

    def __init__(
        self, config: GCNConfig, in_features: int, out_features: int, edge_width: int, randomness: Randomness
    ) -> None:
        super().__init__(randomness)
        widths = config.convolutions(in_features, out_features)
        self.depth, self.edge_width, self.self_loops = config.layers, edge_width, config.self_loops
        inner = widths[1:-1] if config.readout is None else widths[1:]
        self.convs = nn.ModuleList(
            GraphConv(config, a, b, edge_width, name=f"convs.{i}", randomness=randomness)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in inner)
        self.dropouts = nn.ModuleList(
            KeyedDropout(
                config.dropout if i > 0 or config.input_dropout else 0.0, name=f"dropouts.{i}", randomness=randomness
            )
            for i in range(len(inner) + 1)
        )
        self.skips = nn.ModuleList(
            FeatureLinear(a, b, name=f"skips.{i}", randomness=randomness)
            for i, (a, b) in enumerate(zip(widths, inner, strict=False))
            if config.residual
        )
        self.activation = ACTIVATIONS[config.activation]
        self.readout: Readout | None = None
        if config.readout is not None:
            self.readout = Readout(config.readout, config.hidden, name="readout", randomness=randomness)
            self.head = FeatureLinear(config.hidden, out_features, name="head", randomness=randomness)

    def block_trace(self, x: Features, blocks: Sequence[CSRGraph]) -> Trace:
        return self._trace(x, blocks, None, None)

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        graph = need_graph(graph, "GCN")
        sums = None if edges is None else self._edge_sums(graph, edges)
        return self._trace(x, [graph] * self.depth, segments, sums)

    def _edge_sums(self, graph: CSRGraph, edges: Tensor) -> Tensor:
        """[N, edge_width] ``sum_j a_ij e_ij``."""
        if not self.self_loops:
            return edge_sums(graph, edges, gcn_weight(graph, edges.dtype))
        root = looped_roots(graph, edges.dtype)
        return root[:, None] * edge_sums(graph, edges, root[graph.index.long()])

    def _trace(self, x: Features, blocks: Sequence[CSRGraph], segments: Tensor | None, sums: Tensor | None) -> Trace:
        hidden: list[Tensor] = []
        for layer, (conv, block) in enumerate(zip(self.convs, blocks, strict=True)):
            x = self.dropouts[layer](x)
            out: Tensor = conv(x, block, sums)
            if layer == len(self.norms):  # the last convolution, without a readout
                return Trace(out if segments is None else segment_mean(out, segments), tuple(hidden))
            if self.skips:
                out = out + self.skips[layer](x)[: block.num_dst]
            hidden.append(self.norms[layer](out))
            x = self.activation(hidden[-1])
        assert isinstance(x, Tensor) and self.readout is not None
        pooled = None if segments is None else self.readout(x, segments)
        logits = self.head(self.dropouts[-1](x if pooled is None else pooled))
        return Trace(logits, tuple(hidden), pooled=pooled)

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.convs[0].parameters())
