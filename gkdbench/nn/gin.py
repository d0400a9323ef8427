"""Graph isomorphism network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, spmm
from torch import Tensor, nn

from gkdbench.nn.edges import edge_linear, edge_sums
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import EdgeBackbone, Model, Trace, check_choice, check_range, need_graph
from gkdbench.nn.parts import BatchNorm, KeyedDropout
from gkdbench.nn.pooling import POOLINGS, Pooling, Readout
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class GINConfig(EdgeBackbone):
    """``h_i <- relu(BN(MLP((1 + eps) h_i + sum_j (h_j + e_ij V))))``, a readout of the last layer, a linear head.

    The sum runs over the graph's edges as given: a graph with self-loops counts the node itself once more. ``e_ij V``
    is there where edges have features (see `EdgeBackbone`).

    Args:
        hidden: width of every layer.
        layers: number of aggregations, each with an MLP of two linear layers.
        train_eps: whether eps is learnt; it starts at 0.
        readout: of graph tasks; node tasks have none.
        dropout: before the head.
    """

    name: ClassVar[str] = "gin"
    paper: ClassVar[str] = "Xu, Hu, Leskovec & Jegelka, How Powerful are Graph Neural Networks?, ICLR 2019"
    revision: ClassVar[int] = 1

    hidden: int = 64
    layers: int = 5
    train_eps: bool = True
    readout: Pooling = "sum"
    dropout: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "readout", POOLINGS)

    @property
    def hops(self) -> int:
        return self.layers

    def build_with_edges(self, in_features: int, out_features: int, edge_width: int, randomness: Randomness) -> Model:
        return GIN(self, in_features, out_features, edge_width, randomness)

    def edge_macs(self, edge_width: int, num_nodes: int, num_edges: int) -> int:
        return edge_width * (num_edges + self.layers * num_nodes * self.hidden)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        inner = (2 * self.layers - 1) * num_nodes * self.hidden**2
        aggregate = self.layers * (num_edges + num_nodes) * self.hidden
        # the head is counted once per node: an upper bound where one graph has many
        return nnz * self.hidden + inner + aggregate + num_nodes * self.hidden * out_features


class GINConv(nn.Module):
    """Aggregation and MLP; the first linear map has no bias, as a batch norm follows."""

    def __init__(
        self, in_features: int, hidden: int, edge_width: int, *, train_eps: bool, name: str, randomness: Randomness
    ) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()), requires_grad=train_eps)
        self.first = FeatureLinear(
            in_features, hidden, name=f"{name}.first", randomness=randomness, bias=False, init="torch"
        )
        self.edges = edge_linear(edge_width, hidden, name=name, randomness=randomness)
        self.norm = BatchNorm(hidden)
        self.second = FeatureLinear(hidden, hidden, name=f"{name}.second", randomness=randomness, init="torch")

    def forward(self, x: Features, graph: CSRGraph, edges: Tensor | None) -> Tensor:
        """[N, hidden] from ``x: [N, in]`` and the sums of edge features ``edges: [N, edge_width]``."""
        y: Tensor = self.first(x)  # linear: aggregate after it, also where x is sparse
        y = (1 + self.eps) * y + spmm(graph, y)
        if self.edges is not None and edges is not None:
            y = y + self.edges(edges)
        y = self.norm(y)
        out: Tensor = self.second(torch.relu(y))
        return out


class GIN(Model):
    """The module of `GINConfig`."""

    def __init__(
        self, config: GINConfig, in_features: int, out_features: int, edge_width: int, randomness: Randomness
    ) -> None:
        super().__init__(randomness)
        hidden, self.edge_width = config.hidden, edge_width
        self.convs = nn.ModuleList(
            GINConv(
                hidden if i else in_features,
                hidden,
                edge_width,
                train_eps=config.train_eps,
                name=f"convs.{i}",
                randomness=randomness,
            )
            for i in range(config.layers)
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in range(config.layers))
        self.readout = Readout(config.readout, hidden, name="readout", randomness=randomness)
        self.dropout = KeyedDropout(config.dropout, name="dropout", randomness=randomness)
        self.head = FeatureLinear(hidden, out_features, name="head", randomness=randomness, init="torch")

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        return self.trace(x, graph)

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        graph, hidden, state = need_graph(graph, "GIN"), [], x
        sums = None if edges is None else edge_sums(graph, edges)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden.append(norm(conv(state, graph, sums)))
            state = torch.relu(hidden[-1])
        assert isinstance(state, Tensor)  # there is at least one layer
        pooled = None if segments is None else self.readout(state, segments)
        logits = self.head(self.dropout(state if pooled is None else pooled))
        return Trace(logits, tuple(hidden), pooled=pooled)

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.convs[0].parameters())
