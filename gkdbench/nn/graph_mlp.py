"""The student of graph-level distillation: an MLP on nodes, a readout, a linear head."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Backbone, Model, Trace, check_choice, check_range, need_graph
from gkdbench.nn.parts import BatchNorm, KeyedDropout
from gkdbench.nn.pooling import POOLINGS, Pooling, Readout
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class GraphMLPConfig(Backbone):
    """Node MLP ``D -> h -> 2h -> 2h`` with BatchNorm and ReLU, a readout, a linear head (Yao et al., WWW 2024).

    Args:
        hidden: h.
        hops: 0 reads a node's own features (MLP); 1 also the sum of its neighbours' (GA-MLP), known before training.
        readout: from nodes to graphs; node tasks have none.
        dropout: before the head.
    """

    name: ClassVar[str] = "graph_mlp"
    paper: ClassVar[str] = "Yao, Sun, Cao, Zhang & Chen, MuGSI (the MLP and GA-MLP students), WWW 2024"
    revision: ClassVar[int] = 1

    hidden: int = 64
    hops: int = 0
    readout: Pooling = "attention"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "hops", 0, 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "readout", POOLINGS)

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return GraphMLP(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        h = self.hidden
        first = nnz * h * (1 + self.hops) + self.hops * num_edges * h
        # the head is counted once per node: an upper bound where one graph has many
        return first + num_nodes * (2 * h * h + 4 * h * h + 2 * h * out_features)


class GraphMLP(Model):
    """The module of `GraphMLPConfig`."""

    def __init__(self, config: GraphMLPConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        widths = [in_features, config.hidden, 2 * config.hidden, 2 * config.hidden]
        self.linears = nn.ModuleList(
            FeatureLinear(a, b, name=f"linears.{i}", randomness=randomness, init="torch", bias=False)
            for i, (a, b) in enumerate(pairwise(widths))  # a batch norm follows
        )
        self.neighbours: FeatureLinear | None = None
        if config.hops:
            self.neighbours = FeatureLinear(
                in_features, config.hidden, name="neighbours", randomness=randomness, init="torch", bias=False
            )
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths[1:])
        self.readout = Readout(config.readout, widths[-1], name="readout", randomness=randomness)
        self.dropout = KeyedDropout(config.dropout, name="dropout", randomness=randomness)
        self.head = FeatureLinear(widths[-1], out_features, name="head", randomness=randomness, init="torch")

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        return self.trace(x, graph)

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        hidden: list[Tensor] = []
        for linear, norm in zip(self.linears, self.norms, strict=True):
            y: Tensor = linear(x)
            if self.neighbours is not None and not hidden:
                y = y + spmm(need_graph(graph, "GraphMLP with hops"), self.neighbours(x))
            hidden.append(norm(y))
            x = torch.relu(hidden[-1])
        assert isinstance(x, Tensor)
        pooled = None if segments is None else self.readout(x, segments)
        return Trace(self.head(self.dropout(x if pooled is None else pooled)), tuple(hidden), pooled=pooled)

    def first_layer_parameters(self) -> list[nn.Parameter]:
        first = list(self.linears[0].parameters())
        return first if self.neighbours is None else first + list(self.neighbours.parameters())
