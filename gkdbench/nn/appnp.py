"""Predict, then propagate: personalised PageRank over an MLP's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gkdkernels import CSRGraph, Features, gcn_weight, keyed_dropout, spmm
from torch import Tensor, nn

from gkdbench.nn.mlp import MLP, MLPConfig
from gkdbench.nn.model import Backbone, Model, Trace, check_range, need_graph
from gkdbench.nn.parts import Activation, KeyedDropout, Norm
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class APPNPConfig(Backbone):
    """``Z <- (1 - alpha) A_hat Z + alpha H``, k times from the logits H of an MLP (Gasteiger et al. 2019, eq. 4).

    Args:
        hidden: width of the MLP's hidden layers.
        layers: of the MLP.
        dropout: after each activation of the MLP.
        input_dropout: whether the features are dropped too (Gasteiger et al.: yes; GLNN's teacher: no).
        edge_dropout: on the entries of A_hat, drawn again in each of the k steps.
        alpha: probability of the teleport.
        k: number of propagation steps.
        norm: of the MLP.
        activation: of the MLP.
    """

    name: ClassVar[str] = "appnp"
    paper: ClassVar[str] = "Gasteiger, Bojchevski & Guennemann, Predict then Propagate, ICLR 2019"
    revision: ClassVar[int] = 1

    hidden: int = 128
    layers: int = 2
    dropout: float = 0.5
    input_dropout: bool = False
    edge_dropout: float = 0.5
    alpha: float = 0.1
    k: int = 10
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        for field in ("edge_dropout", "alpha"):
            check_range(self, field, 0, 1)
        check_range(self, "k", 0)
        self.mlp()

    def mlp(self) -> MLPConfig:
        """The configuration of the predictor."""
        return MLPConfig(
            hidden=self.hidden, layers=self.layers, dropout=self.dropout, norm=self.norm, activation=self.activation
        )

    @property
    def hops(self) -> int:
        return self.k

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return APPNP(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        predict = self.mlp().macs(in_features, out_features, num_nodes, num_edges, nnz)
        return predict + self.k * (num_edges + num_nodes) * out_features


class APPNP(Model):
    """The module of `APPNPConfig`."""

    def __init__(self, config: APPNPConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        self.predict = MLP(config.mlp(), in_features, out_features, randomness)
        self.input_dropout = KeyedDropout(
            config.dropout if config.input_dropout else 0.0, name="input_dropout", randomness=randomness
        )
        self.alpha, self.k, self.edge_dropout = config.alpha, config.k, config.edge_dropout

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        graph = need_graph(graph, "APPNP")
        predicted = self.predict.node_trace(self.input_dropout(x), None)
        z = predicted.logits
        for step in range(self.k):
            z = (1 - self.alpha) * spmm(graph, z, self._weight(graph, step, z)) + self.alpha * predicted.logits
        return Trace(z, predicted.hidden)

    def _weight(self, graph: CSRGraph, step: int, z: Tensor) -> Tensor:
        weight = gcn_weight(graph, z.dtype)
        if not self.training or self.edge_dropout == 0.0:
            return weight
        return keyed_dropout(weight, self.edge_dropout, self.randomness.key(f"edges.{step}"))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return self.predict.first_layer_parameters()
