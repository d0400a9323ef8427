"""The multi-layer perceptron: student of GLNN, and the floor of every node task."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from gkdkernels import CSRGraph, Features
from torch import nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Model, StackedBackbone, Trace, check_choice, check_range
from gkdbench.nn.parts import ACTIVATIONS, NORMS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class MLPConfig(StackedBackbone):
    """Linear layers with norm, activation and dropout between them; reads no graph.

    Args:
        hidden: width of the hidden layers.
        layers: number of linear layers, 1 is a linear classifier.
        dropout: after each activation; the input is not dropped (GLNN's student).
        norm: before each activation.
        activation: between layers.
    """

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "Zhang et al., Graph-less Neural Networks, ICLR 2022"
    revision: ClassVar[int] = 1

    hidden: int = 128
    layers: int = 2
    dropout: float = 0.5
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        check_range(self, "hidden", 1)
        check_range(self, "layers", 1)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "norm", NORMS)
        check_choice(self, "activation", tuple(ACTIVATIONS))

    @property
    def hops(self) -> int:
        return 0

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return MLP(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        inner = sum(a * b for a, b in pairwise(widths[1:]))
        return nnz * widths[1] + num_nodes * inner


class MLP(Model):
    """The module of `MLPConfig`; weights as in `nn.Linear`."""

    def __init__(self, config: MLPConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        widths = config.widths(in_features, out_features)
        self.linears = nn.ModuleList(
            FeatureLinear(a, b, name=f"linears.{i}", randomness=randomness, init="torch")
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in widths[1:-1])
        self.dropouts = nn.ModuleList(
            KeyedDropout(config.dropout, name=f"dropouts.{i}", randomness=randomness) for i in range(config.layers - 1)
        )
        self.activation = ACTIVATIONS[config.activation]

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        hidden = []
        for linear, norm, dropout in zip(self.linears, self.norms, self.dropouts, strict=False):
            hidden.append(norm(linear(x)))
            x = dropout(self.activation(hidden[-1]))
        return Trace(self.linears[-1](x), tuple(hidden))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.linears[0].parameters())
