"""Mixture-of-experts students: layers of linear experts of which each row uses k; routers are in rbm.py and moe.py."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features
from gkdkernels.experts.op import expert_linear
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.linear import feature_product, uniform
from gkdbench.nn.model import Backbone, Model, StackedBackbone, Trace, check_choice, check_range
from gkdbench.nn.parts import NORMS, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness
from gkdbench.nn.stats import RunningStatistics


@dataclass(frozen=True, kw_only=True)
class MixtureConfig(StackedBackbone):
    """What all mixtures have; reads no graph. Layers have a norm and a ReLU between them.

    Args:
        hidden: width of the hidden layers. layers: number of layers, each with its own experts.
        dropout: on the inputs of the experts, raw features too; routers read what was not dropped.
        norm: before each ReLU.
        experts: per layer. k: of them that a row uses.
        temperature: first value of the learned factor of each layer's output.
        dropout_per: "row": the experts of a row share its mask; "pair": each has its own (the official code).
    """

    hidden: int = 128
    layers: int = 2
    dropout: float = 0.5
    norm: Norm = "none"
    experts: int = 4
    k: int = 2
    temperature: float = 1.0
    dropout_per: Literal["row", "pair"] = "row"

    def __post_init__(self) -> None:
        for field in ("hidden", "layers", "experts", "k"):
            check_range(self, field, 1)
        check_range(self, "k", 1, self.experts)
        check_range(self, "dropout", 0, 1)
        check_choice(self, "norm", NORMS)
        check_choice(self, "dropout_per", ("row", "pair"))
        check_positive(self, "temperature")

    @property
    def hops(self) -> int:
        return 0

    def expert_macs(self, in_features: int, out_features: int, num_nodes: int, nnz: int) -> int:
        """Multiply-adds of the experts that are used; the first layer multiplies non-zeros."""
        widths = self.widths(in_features, out_features)
        inner = sum(a * b for a, b in pairwise(widths[1:]))
        return self.k * (nnz * widths[1] + num_nodes * inner)


def check_positive(config: Backbone, field: str) -> None:
    """Refuse a field that has no logarithm."""
    if not getattr(config, field) > 0:
        raise UserError(f"{config.name}.{field}: expected a value above 0, got {getattr(config, field)!r}")


@dataclass(frozen=True, slots=True)
class Routing:
    """Where one layer sent its rows.

    Args:
        x: [N, D] what was routed.
        index, alpha, score: [N, k] experts, their weights, and the scores that chose them.
        probability: [N, E] softmax of all scores, of routers that have one.
    """

    x: Features
    index: Tensor
    alpha: Tensor
    score: Tensor
    probability: Tensor | None = None


@dataclass(frozen=True, slots=True)
class MixtureTrace(Trace):
    """A forward pass.

    Args:
        routings: of each layer; empty while only expert 0 is trained.
        first: [N, H] output of the first layer, before norm and ReLU.
    """

    routings: tuple[Routing, ...]
    first: Tensor


class ExpertLayer(RunningStatistics):
    """``y = exp(t) sum_{e in T} alpha_e (W_e (exp(c_e) * x) + b_e)``: E linear experts under one router.

    Args:
        name: keys initial values and dropout masks.
        gate: first value of the input gate exp(c); None: no gate.
    """

    def __init__(
        self,
        config: MixtureConfig,
        in_features: int,
        out_features: int,
        *,
        name: str,
        randomness: Randomness,
        gate: float | None = None,
    ) -> None:
        super().__init__()
        self.name, self.randomness, self.k, self.dropout_per = name, randomness, config.k, config.dropout_per
        bound = max(in_features, 1) ** -0.5
        shape = (config.experts, in_features, out_features)
        self.weight = nn.Parameter(uniform(shape, bound, randomness, f"{name}.weight"))
        self.bias = nn.Parameter(uniform((config.experts, out_features), bound, randomness, f"{name}.bias"))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.gate: nn.Parameter | None = None
        if gate is not None:
            self.gate = nn.Parameter(torch.full((config.experts, in_features), math.log(gate)))
        self.dropout = KeyedDropout(config.dropout, name=f"{name}.dropout", randomness=randomness)

    @abstractmethod
    def route(self, x: Features) -> Routing:
        """The experts of each row of ``x: [N, D]``."""

    def forward(self, x: Features) -> tuple[Tensor, Routing]:
        """[N, H] from ``x: [N, D]``, and the routing."""
        routing = self.route(x)
        return self.mix(x, routing), routing

    def mix(self, x: Features, routing: Routing) -> Tensor:
        """[N, H] the outputs of the experts that `routing` chose, weighted."""
        p = self.dropout.p if self.training else 0.0
        return expert_linear(
            x,
            self.weight,
            self.bias,
            routing.index,
            routing.alpha,
            gate=self.gate,
            log_temperature=self.log_temperature,
            dropout=p,
            key=self.randomness.key(self.dropout.name) if p else None,
            dropout_per=self.dropout_per,
        )

    def alone(self, x: Features) -> Tensor:
        """[N, H] expert 0 without gate and temperature: the layer before routing begins."""
        return feature_product(self.dropout(x), self.weight[0]) + self.bias[0]

    @property
    def copies_first(self) -> bool:
        """Whether all experts begin routing as copies of expert 0."""
        return True

    @torch.no_grad()
    def copy_first(self) -> None:
        """Give all experts the weights of expert 0."""
        self.weight.copy_(self.weight[:1].expand_as(self.weight))
        self.bias.copy_(self.bias[:1].expand_as(self.bias))


class MixtureModel(Model):
    """Layers of experts, with norm and ReLU between them.

    Attributes:
        routed: False while only expert 0 is trained. It is part of the state, for an epoch before the switch is
            evaluated as it was.
    """

    def __init__(
        self,
        config: MixtureConfig,
        in_features: int,
        out_features: int,
        randomness: Randomness,
        make: Callable[[int, int, str], ExpertLayer],
    ) -> None:
        super().__init__(randomness)
        widths = config.widths(in_features, out_features)
        self.layers = nn.ModuleList(make(a, b, f"layers.{i}") for i, (a, b) in enumerate(pairwise(widths)))
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in widths[1:-1])
        self.routed = True

    @property
    def expert_layers(self) -> list[ExpertLayer]:
        """`layers`, as what they are."""
        return [layer for layer in self.layers if isinstance(layer, ExpertLayer)]

    def node_trace(self, x: Features, graph: CSRGraph | None) -> MixtureTrace:
        hidden: list[Tensor] = []
        routings: list[Routing] = []
        for depth, layer in enumerate(self.expert_layers):
            if self.routed:
                y, routing = layer(x)
                routings.append(routing)
            else:
                y = layer.alone(x)
            if depth == 0:
                first = y
            if depth < len(self.norms):
                y = self.norms[depth](y)
                hidden.append(y)
                x = F.relu(y)
        return MixtureTrace(y, tuple(hidden), tuple(routings), first)

    @torch.no_grad()
    def begin_routing(self, x: Features) -> None:
        """Copy expert 0 into all experts and route from now on; ``x: [N, D]`` are all observed rows."""
        for layer in self.expert_layers:
            if layer.copies_first:
                layer.copy_first()
        self.routed = True

    def router_tensors(self) -> list[Tensor]:
        """Tensors of the routers that are trained, but are not parameters (a memory)."""
        return []

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.layers[0].parameters())

    def get_extra_state(self) -> Tensor:
        """`routed`, as a tensor on the CPU: states are compared and stored as tensors."""
        return torch.tensor(self.routed)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.routed = bool(state)
