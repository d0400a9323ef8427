"""Routing by memory: a mixture whose experts are chosen by the cosine of a row to a moving memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features
from gkdkernels.experts.folded import fold_experts, rbm_layer
from gkdkernels.experts.folded_types import BatchNormStatistics, FoldedExperts
from gkdkernels.experts.routing import memory_update, route_by_memory, route_by_scores
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.clustering import direction_kmeans
from gkdbench.nn.mixture import ExpertLayer, MixtureConfig, MixtureModel, Routing, check_positive
from gkdbench.nn.model import Model, check_choice, check_range
from gkdbench.nn.random import Randomness

RoutingRule = Literal["memory", "frozen", "random", "random_each"]
RULES: tuple[RoutingRule, ...] = ("memory", "frozen", "random", "random_each")


@dataclass(frozen=True, kw_only=True)
class RbMConfig(MixtureConfig):
    """Experts chosen by memory: ``s = cos(x, M_e)``, T the k largest, ``alpha = softmax(s_T)``.

    Args:
        gate: whether each expert has an input gate; gate_start: its first value.
        decay: of the memory's moving average.
        routing: "memory"; "frozen": memories stay as k-means left them (protocol control G6); "random": they stay
            random directions, so that a row's experts are a random function of it; "random_each": experts are drawn
            again in every training forward, and evaluation uses the random directions (docs/protocol.md, control G5).
    """

    name: ClassVar[str] = "rbm"
    paper: ClassVar[str] = "Rumiantsev and Coates, Graph Knowledge Distillation to Mixture of Experts, TMLR 2024"
    revision: ClassVar[int] = 1

    gate: bool = False
    gate_start: float = 1.0
    decay: float = 0.9
    routing: RoutingRule = "memory"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "decay", 0, 1)
        check_positive(self, "gate_start")
        check_choice(self, "routing", RULES)

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return RbMModel(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        widths = self.widths(in_features, out_features)
        router = self.experts * (nnz + num_nodes * sum(widths[1:-1]))
        return router + self.expert_macs(in_features, out_features, num_nodes, nnz)


class RbMLayer(ExpertLayer):
    """Experts with a memory ([E, D], a buffer): it follows the rows of training forwards once it was initialised.

    Attributes:
        updating: False until `initialise`, and within ``update_stats(model, False)``.
    """

    memory: Tensor

    def __init__(
        self, config: RbMConfig, in_features: int, out_features: int, name: str, *, randomness: Randomness
    ) -> None:
        gate = config.gate_start if config.gate else None
        super().__init__(config, in_features, out_features, name=name, randomness=randomness, gate=gate)
        self.decay, self.rule = config.decay, config.routing
        generator = randomness.initial(f"{name}.memory")
        start = torch.randn(config.experts, in_features, generator=generator)
        self.register_buffer("memory", F.normalize(start, dim=1))
        self.updating = False

    def route(self, x: Features) -> Routing:
        if self.training and self.rule == "random_each":
            generator = torch.Generator().manual_seed(self.randomness.key(f"{self.name}.route"))
            scores = torch.rand(x.shape[0], self.memory.size(0), generator=generator)
            return Routing(x, *route_by_scores(scores.to(x.device), self.k))
        # a copy: the memory changes below, and backward may still need the memory that routed
        routing = Routing(x, *route_by_memory(x, self.memory.detach().clone(), self.k))
        if self.training and self.updating:
            self._move(routing)
        return routing

    def mix(self, x: Features, routing: Routing) -> Tensor:
        """[N, H] the weighted experts; the task's loss has no gradient through the weights."""
        return super().mix(x, replace(routing, alpha=routing.alpha.detach()))

    @torch.no_grad()
    def _move(self, routing: Routing) -> None:
        x = routing.x.detach() if isinstance(routing.x, Tensor) else routing.x
        self.memory.copy_(memory_update(self.memory, x, routing.index, routing.alpha.detach(), decay=self.decay))

    @torch.no_grad()
    def initialise(self, x: Features) -> None:
        """Memories are the centroids of ``x: [N, D]``, of norm 1 (random routing keeps its directions)."""
        if self.rule in ("memory", "frozen"):
            generator = self.randomness.initial(f"{self.name}.clusters")
            self.memory.copy_(F.normalize(direction_kmeans(x, self.memory.size(0), generator), dim=1))
        self.updating = self.rule == "memory"

    @property
    def directions(self) -> Tensor:
        """[E, D] the memory's rows at norm 1, differentiable where the memory is."""
        return F.normalize(self.memory, dim=1)


class RbMModel(MixtureModel):
    """The module of `RbMConfig`."""

    def __init__(self, config: RbMConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        make = partial(RbMLayer, config, randomness=randomness)
        super().__init__(config, in_features, out_features, randomness, make)
        self.k = config.k

    @torch.no_grad()
    def begin_routing(self, x: Features) -> None:
        """Layer by layer: k-means of the layer's inputs, copies of expert 0, the routed outputs to the next layer."""
        super().begin_routing(x)
        training = self.training
        self.eval()
        for depth, layer in enumerate(self.memories):
            layer.initialise(x)
            y, _ = layer(x)
            if depth < len(self.norms):
                x = F.relu(self.norms[depth](y))
        self.train(training)

    @property
    def memories(self) -> list[RbMLayer]:
        """The layers, as what they are."""
        return [layer for layer in self.layers if isinstance(layer, RbMLayer)]

    def router_tensors(self) -> list[Tensor]:
        return [layer.memory for layer in self.memories]

    def folded(self, backend: str = "auto") -> FoldedRbM:
        """Inference with gate, temperature and BatchNorm folded into the experts, with the current weights.

        Args:
            backend: as of `gkdkernels.experts.folded`.

        Raises:
            UserError: a LayerNorm: it reads its row, so that it is not a linear map.
        """
        folded = []
        for depth, layer in enumerate(self.memories):
            norm = self.norms[depth] if depth < len(self.norms) else None
            folded.append(
                fold_experts(
                    layer.weight,
                    layer.bias,
                    layer.memory,
                    gate=layer.gate,
                    log_temperature=layer.log_temperature,
                    batch_norm=_statistics(norm),
                )
            )
        return FoldedRbM(folded, self.k, backend)


def _statistics(norm: nn.Module | None) -> BatchNormStatistics | None:
    if norm is None or isinstance(norm, nn.Identity):
        return None
    if not isinstance(norm, nn.BatchNorm1d) or norm.running_mean is None or norm.running_var is None:
        raise UserError(f"folding: expected a BatchNorm or no norm, got {type(norm).__name__}; call the model itself")
    return BatchNormStatistics(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


class FoldedRbM(nn.Module):
    """An RbM for inference alone: a row norm, E dot products and top-k stay around k products per layer."""

    def __init__(self, layers: list[FoldedExperts], k: int, backend: str = "auto") -> None:
        super().__init__()
        self.folded, self.k, self.backend = layers, k, backend

    @torch.no_grad()
    def forward(self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits [N, C] of node tasks from ``x: [N, D]``; graph and segments are not read."""
        if segments is not None:
            raise ValueError("segments: expected None, got segments; folded mixtures predict nodes only")
        for inner, _ in pairwise(self.folded):
            x = rbm_layer(x, inner, self.k, backend=self.backend)
        return rbm_layer(x, self.folded[-1], self.k, relu=False, backend=self.backend)
