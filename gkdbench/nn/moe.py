"""The plain sparse mixture of experts: a learned router, as the baseline of RbM."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import Features
from gkdkernels.experts.routing import route_by_scores
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear, uniform
from gkdbench.nn.mixture import ExpertLayer, MixtureConfig, MixtureModel, Routing
from gkdbench.nn.model import Model, check_choice
from gkdbench.nn.random import Randomness

Router = Literal["linear", "cosine", "released"]
ROUTERS: tuple[Router, ...] = ("linear", "cosine", "released")


@dataclass(frozen=True, kw_only=True)
class MoEConfig(MixtureConfig):
    """Experts chosen by a learned router; the weights of a row's experts have a gradient (unlike RbM's).

    Args:
        router: "linear": scores ``W_r x``. "cosine": ``exp(u) cos(P x, C_e)`` with a D x H projection, a direction
            per expert and a temperature, all learned. Both give the k best experts a softmax over them. "released":
            the cosine router as published, with noise in training, k + 1 experts, and weights that are a softmax over
            all experts, so that they sum to less than 1; before routing, expert e reads the e-th slice of a batch.
    """

    name: ClassVar[str] = "moe"
    paper: ClassVar[str] = "sparse mixture of experts, baseline of Rumiantsev and Coates, TMLR 2024"
    revision: ClassVar[int] = 1

    experts: int = 8
    k: int = 3
    router: Router = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "router", ROUTERS)

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        layers: dict[str, Callable[..., ExpertLayer]] = {
            "linear": LinearRouted,
            "cosine": CosineRouted,
            "released": AsReleased,
        }
        layer = layers[self.router]
        return MixtureModel(self, in_features, out_features, randomness, partial(layer, self, randomness=randomness))

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        inputs = [nnz, *(num_nodes * width for width in widths[1:-1])]
        if self.router == "linear":
            router = self.experts * sum(inputs)
        else:
            router = sum(self.hidden * count for count in inputs) + self.layers * num_nodes * self.hidden * self.experts
        experts = self.expert_macs(in_features, out_features, num_nodes, nnz)
        return router + experts * self.used // self.k

    @property
    def used(self) -> int:
        """Experts that a row really uses."""
        return min(self.k + 1, self.experts) if self.router == "released" else self.k


class LinearRouted(ExpertLayer):
    """Scores are a linear map of the row."""

    def __init__(
        self, config: MoEConfig, in_features: int, out_features: int, name: str, *, randomness: Randomness
    ) -> None:
        super().__init__(config, in_features, out_features, name=name, randomness=randomness)
        self.router = FeatureLinear(
            in_features, config.experts, name=f"{name}.router", randomness=randomness, bias=False, init="torch"
        )

    def route(self, x: Features) -> Routing:
        scores: Tensor = self.router(x)
        return Routing(x, *route_by_scores(scores, self.k), scores.softmax(1))


class CosineRouted(ExpertLayer):
    """Scores are cosines of a projection of the row to learned directions, times a learned temperature."""

    def __init__(
        self, config: MoEConfig, in_features: int, out_features: int, name: str, *, randomness: Randomness
    ) -> None:
        super().__init__(config, in_features, out_features, name=name, randomness=randomness)
        width = config.hidden
        self.projection = FeatureLinear(
            in_features, width, name=f"{name}.projection", randomness=randomness, init="torch"
        )
        bound = max(width, 1) ** -0.5
        self.direction = nn.Parameter(uniform((config.experts, width), bound, randomness, f"{name}.direction"))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(2.0)))

    def scores(self, x: Features) -> Tensor:
        """[N, E] from ``x: [N, D]``."""
        cosine = F.normalize(self.projection(x), dim=1) @ F.normalize(self.direction, dim=1).t()
        return self.log_sharpness.clamp(max=math.log(100.0)).exp() * cosine

    def route(self, x: Features) -> Routing:
        scores = self.scores(x)
        return Routing(x, *route_by_scores(scores, self.k), scores.softmax(1))


class AsReleased(CosineRouted):
    """The official code's router and its pre-training by slices."""

    def route(self, x: Features) -> Routing:
        scores = self.scores(x)
        experts = scores.size(1)
        if self.training:
            generator = torch.Generator().manual_seed(self.randomness.key(f"{self.name}.noise"))
            noise = torch.randn(scores.shape, generator=generator)
            scores = scores + noise.to(scores.device) / experts
        probability = scores.softmax(1)
        index, _, score = route_by_scores(scores, min(self.k + 1, experts))
        return Routing(x, index, probability.gather(1, index), score, probability)

    def alone(self, x: Features) -> Tensor:
        """[N, H] of the expert whose slice of the batch has the row, in evaluation too."""
        rows, experts = x.shape[0], self.weight.size(0)
        index = torch.arange(rows, device=x.device)[:, None] * experts // max(rows, 1)
        routing = Routing(x, index, torch.ones_like(index, dtype=self.weight.dtype), index)
        return self.mix(x, routing)

    @property
    def copies_first(self) -> bool:
        """No: every expert was pre-trained on its own slice."""
        return False
