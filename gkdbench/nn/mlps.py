"""Several MLPs that answer together, each with a weight of its own that is set from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features
from torch import Tensor, nn

from gkdbench.nn.mlp import MLP, MLPConfig
from gkdbench.nn.model import Model, StackedBackbone, Trace, check_range
from gkdbench.nn.parts import Activation, Norm
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class MLPsConfig(StackedBackbone):
    """``log sum_k alpha_k softmax(z_k)`` of `members` MLPs; reads no graph.

    With several labels per item, the logit of ``sum_k alpha_k sigmoid(z_k)``.

    Args:
        members: K. hidden, layers, dropout, norm, activation: of each, as in `MLPConfig`.
    """

    name: ClassVar[str] = "mlps"
    paper: ClassVar[str] = "Lu et al., AdaGMLP: AdaBoosting GNN-to-MLP Knowledge Distillation, KDD 2024"
    revision: ClassVar[int] = 1

    members: int = 2
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    norm: Norm = "none"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        check_range(self, "members", 1)
        self.member()

    def member(self) -> MLPConfig:
        """The configuration of one of them."""
        return MLPConfig(
            hidden=self.hidden, layers=self.layers, dropout=self.dropout, norm=self.norm, activation=self.activation
        )

    @property
    def hops(self) -> int:
        return 0

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return MLPs(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        one = self.member().macs(in_features, out_features, num_nodes, num_edges, nnz)
        return self.members * (one + num_nodes * out_features)


class MLPs(Model):
    """The module of `MLPsConfig`; with one member, that member is the `MLPConfig` of the same randomness.

    Attributes:
        alpha: [K] weights of the members, which sum to 1.
    """

    alpha: Tensor

    def __init__(self, config: MLPsConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        first = randomness.peer * config.members
        self.members = nn.ModuleList(
            MLP(config.member(), in_features, out_features, Randomness(randomness.seed, first + k))
            for k in range(config.members)
        )
        self.register_buffer("alpha", torch.full((config.members,), 1 / config.members))

    def member_trace(self, k: int, x: Features) -> Trace:
        """Logits and hidden layers of member `k` alone, drawn for the current step."""
        member = self.member(k)
        member.randomness.step = self.randomness.step
        return member.trace(x)

    def member(self, k: int) -> MLP:
        """Member `k`, counted from 0."""
        found = self.members[k]
        if not isinstance(found, MLP):
            raise TypeError(f"member {k}: expected an MLP, got {type(found).__name__}")
        return found

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        traces = [self.member_trace(k, x) for k in range(len(self.members))]
        z = torch.stack([trace.logits for trace in traces])  # [K, N, C]
        if self.several_labels:
            logits = self._mixed(F.logsigmoid(z)) - self._mixed(F.logsigmoid(-z))
        else:
            logits = self._mixed(F.log_softmax(z, dim=2))
        hidden = tuple(torch.cat(layer, dim=1) for layer in zip(*(trace.hidden for trace in traces), strict=True))
        return Trace(logits, hidden)

    def _mixed(self, log_p: Tensor) -> Tensor:
        """[N, C] ``log sum_k alpha_k p_k`` of ``log_p: [K, N, C]``."""
        return (log_p + self.alpha.log()[:, None, None]).logsumexp(dim=0)

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return [p for k in range(len(self.members)) for p in self.member(k).first_layer_parameters()]
