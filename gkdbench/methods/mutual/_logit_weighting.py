"""Units that weight a peer's logits before others see them (GML-R), and the teacher's temperature (BGNN-R)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Backbone, Model, Trace
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor
from gkdbench.training.models import as_predictor

WeightingKind = Literal["temp", "gate", "sig"]

MAX_TEMPERATURE = 4.0
FIRST_BIAS = -3.0
"""Of the temperature before the sigmoid: T begins at about 1.14."""
WIDTH = 16

LOW_SCALE = 0.3
PATIENCE_AT_BOUND = 20
"""Epochs in a row."""


class LogitWeighting(nn.Module):
    """``zt_v = z_v * w_v``, with weights from a two-layer perceptron that reads the detached logits.

    temp: ``w = 1 / T``, ``T = 1 + 3 sigmoid(MLP([sg z, H]))`` per item, H the entropy of its prediction;
    gate: ``w = C softmax(MLP(sg z))`` per class, mean 1; sig: ``w = sigmoid(MLP(sg z))`` per class, unbounded below.

    Args:
        num_classes: C.
        multi_label: H is the mean over labels of the Bernoulli entropies.
        randomness: of the peer that owns it.
    """

    def __init__(self, kind: WeightingKind, num_classes: int, *, multi_label: bool, randomness: Randomness) -> None:
        super().__init__()
        self.kind, self.multi_label = kind, multi_label
        widths = (num_classes + 1, 1) if kind == "temp" else (num_classes, num_classes)
        self.first = FeatureLinear(widths[0], WIDTH, name="weighting.first", randomness=randomness, init="torch")
        self.second = FeatureLinear(WIDTH, widths[1], name="weighting.second", randomness=randomness, init="torch")
        if kind == "temp" and self.second.bias is not None:
            nn.init.constant_(self.second.bias, FIRST_BIAS)

    def forward(self, z: Tensor) -> Tensor:
        """Weighted logits [N, C] of ``z: [N, C]``; gradient flows through z as a factor, and into the unit."""
        if self.kind == "temp":
            return z / self.temperature(z)
        weight = self._perceptron(z.detach())
        return z * (weight.sigmoid() if self.kind == "sig" else z.size(1) * weight.softmax(dim=1))

    def temperature(self, z: Tensor) -> Tensor:
        """[N, 1] in (1, 4), from the detached logits ``z: [N, C]``."""
        read = z.detach()
        read = torch.cat([read, uncertainty(read, multi_label=self.multi_label)[:, None]], dim=1)
        return 1 + (MAX_TEMPERATURE - 1) * self._perceptron(read).sigmoid()

    def _perceptron(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out

    @property
    def macs(self) -> int:
        """Multiply-adds per item."""
        return self.first.weight.numel() + self.second.weight.numel()


def uncertainty(z: Tensor, *, multi_label: bool) -> Tensor:
    """[N] entropy in nats of the prediction of each row of ``z: [N, C]``; several labels: the mean of theirs."""
    if multi_label:
        p = z.sigmoid()
        return -(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z)).mean(dim=1)
    log_p = F.log_softmax(z, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


class WeightedModel(Model):
    """A model whose answer is weighted by its unit."""

    def __init__(self, model: Model, unit: LogitWeighting) -> None:
        super().__init__(model.randomness)
        self.model, self.unit, self.edge_width = model, unit, model.edge_width

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        return self.trace(x, graph)

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        inner = self.model.trace(x, graph, segments, edges)
        return replace(inner, logits=self.unit(inner.logits))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return self.model.first_layer_parameters()


def weighted_predictor(config: Backbone, model: Model, unit: LogitWeighting, num_classes: int) -> Predictor:
    """`model` answering through `unit`, its multiply-adds counted."""
    plain = as_predictor(config, model, num_classes)

    def macs(inputs: Inputs) -> int:
        return (plain.macs(inputs) if plain.macs else 0) + len(inputs.items) * unit.macs

    return replace(plain, module=WeightedModel(model, unit), macs=macs)


@torch.no_grad()
def weighting_diagnostics(
    units: Sequence[LogitWeighting], logits: Sequence[Tensor], weighted: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Per peer "scale", ``mean |zt| / mean |z|``, and for temperatures their mean "temperature"."""
    found = {}
    for k, (unit, z, zt) in enumerate(zip(units, logits, weighted, strict=True)):
        found[f"scale.peer{k}"] = zt.abs().mean() / z.abs().mean().clamp_min(torch.finfo(z.dtype).tiny)
        if unit.kind == "temp":
            found[f"temperature.peer{k}"] = unit.temperature(z).mean()
    return found


def collapsed(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether weights took the logits away: a scale below 0.3, or 20 epochs in a row with the mean temperature within
    2% of its bound. A loss that sees logits only through such weights is small for the wrong reason (protocol trap
    24)."""
    at_bound: dict[str, int] = {}
    for terms in history:
        for name, value in terms.items():
            kind = name.partition(".")[0]
            if kind == "scale" and value < LOW_SCALE:
                return True
            if kind == "temperature":
                at_bound[name] = at_bound.get(name, 0) + 1 if value > 0.98 * MAX_TEMPERATURE else 0
                if at_bound[name] >= PATIENCE_AT_BOUND:
                    return True
    return False
