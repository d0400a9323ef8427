"""What every backbone is: a frozen configuration that builds a module with one calling convention."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gkdkernels import CSRGraph, Features, segment_mean
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.random import Randomness

OMIT_FROM_KEY_AT_DEFAULT = {"neutral": True}
"""Metadata of a field that was added later and whose default leaves every number as it was: `settings_of` leaves it
out at its default, so that keys of published rows stay what they were."""


def settings_of(config: object) -> dict[str, Any]:
    """The fields of a configuration as plain data, without neutral ones at their default."""
    fields = dataclasses.fields(config)  # type: ignore[arg-type]
    values = dataclasses.asdict(config)  # type: ignore[call-overload]
    return {f.name: values[f.name] for f in fields if not f.metadata.get("neutral") or values[f.name] != _default(f)}


def neutral_defaults(kind: type) -> dict[str, Any]:
    """Field -> default of the fields that `settings_of` leaves out at their default."""
    return {f.name: _default(f) for f in dataclasses.fields(kind) if f.metadata.get("neutral")}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass, with what the activations received on the way.

    Args:
        logits: [N or G, C].
        hidden: per hidden layer its pre-activation output [N, width], after the norm where there is one.
        pooled: the graphs' vectors [G, width] that a readout made, before the head; None without a readout.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    pooled: Tensor | None = dataclasses.field(default=None, kw_only=True)


class Model(nn.Module, ABC):
    """A network from features (and a graph) to logits.

    Calling it and `trace` are one code path. With `segments` ([G + 1] row pointers of G graphs stacked in one) the
    logits of a graph are the mean of its nodes' logits, unless the backbone has a readout of its own.

    Args:
        randomness: initial weights and dropout are drawn from it alone.

    Attributes:
        edge_width: columns of the edge features that it reads; 0: it reads none, and is given none.
        several_labels: logits are read label by label (sigmoid), not as one distribution over classes (softmax): for
            models that mix probabilities.
    """

    edge_width: int = 0
    several_labels: bool = False

    def __init__(self, randomness: Randomness) -> None:
        super().__init__()
        self.randomness = randomness

    @abstractmethod
    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        """The forward pass up to logits [N, C] of the nodes."""

    def trace(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Trace:
        """Logits [N, C], or [G, C] with `segments`, and the hidden layers; arguments as of a call."""
        nodes = self.node_trace(x, graph)
        return nodes if segments is None else Trace(segment_mean(nodes.logits, segments), nodes.hidden)

    def forward(
        self, x: Features, graph: CSRGraph | None = None, segments: Tensor | None = None, edges: Tensor | None = None
    ) -> Tensor:
        """Logits.

        Args:
            x: [N, D] features.
            graph: over the N nodes; may be None where the model reads none.
            segments: [G + 1] int, the rows of each graph for graph tasks.
            edges: [E, edge_width] features in the order of ``graph.index``; None counts as zeros.
        """
        return self.trace(x, graph, segments, edges).logits

    @abstractmethod
    def first_layer_parameters(self) -> list[nn.Parameter]:
        """The parameters of the first layer, which some recipes alone decay (Kipf & Welling 2017)."""


class BlockModel(Model):
    """A message-passing model that also runs on sampled rectangular blocks, one per layer."""

    depth: int

    @abstractmethod
    def block_trace(self, x: Features, blocks: Sequence[CSRGraph]) -> Trace:
        """The forward pass with one graph per layer; destinations are the first rows of the sources."""

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        return self.block_trace(x, [need_graph(graph, type(self).__name__)] * self.depth)

    def forward_blocks(self, x_rows: Features, blocks: Sequence[CSRGraph]) -> Tensor:
        """Logits [num_dst of the last block, C].

        Args:
            x_rows: [num_src of the first block, D] features.
            blocks: per layer, from input to output; destinations are the first rows of the sources.
        """
        if len(blocks) != self.depth:
            raise ValueError(f"blocks: expected one graph per layer ({self.depth}), got {len(blocks)}")
        return self.block_trace(x_rows, blocks).logits


class Backbone(ABC):
    """A configuration: a frozen dataclass whose fields are the hyper-parameters."""

    name: ClassVar[str]
    paper: ClassVar[str]
    revision: ClassVar[int]

    @property
    @abstractmethod
    def hops(self) -> int:
        """L: the prediction of a node reads what is at most L edges away from it; 0: its own features alone.

        A field ``hops`` with a default declares it too. It decides what a prediction needs ("graph" or "features").
        """

    @abstractmethod
    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        """The module, with its initial weights drawn from `randomness`."""

    @abstractmethod
    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        """Multiply-adds of one full inference pass.

        Args:
            num_edges: directed edges, self-loops included.
            nnz: non-zeros of the features; ``num_nodes * in_features`` when they are dense.
        """


class EdgeBackbone(Backbone):
    """A backbone whose models read edge features where a data set has them.

    Messages are linear in them, ``h_j + e_ij V``, so that their sum over a node's edges is ``(sum_j e_ij) V``: one
    row of counts per node, whatever the width of the layer, and no [E, width] tensor. A non-linearity between, as in
    GINE's ``relu(h_j + e_ij V)``, would need that tensor.
    """

    @abstractmethod
    def build_with_edges(self, in_features: int, out_features: int, edge_width: int, randomness: Randomness) -> Model:
        """As `build`, for edge features [E, edge_width]; 0: there are none."""

    @abstractmethod
    def edge_macs(self, edge_width: int, num_nodes: int, num_edges: int) -> int:
        """Multiply-adds that edge features add to `macs`."""

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return self.build_with_edges(in_features, out_features, 0, randomness)


class StackedBackbone(Backbone):
    """A backbone of ``layers`` layers, the hidden ones ``hidden`` wide."""

    hidden: int
    layers: int

    def widths(self, in_features: int, out_features: int) -> list[int]:
        """Widths from input to output, ``layers + 1`` of them."""
        return [in_features, *[self.hidden] * (self.layers - 1), out_features]


def parameter_count(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def need_graph(graph: CSRGraph | None, model: str) -> CSRGraph:
    """`graph`, or an error that names the model that needs it."""
    if graph is None:
        raise ValueError(f"{model} reads the graph: expected a graph, got None; call model(x, graph)")
    return graph


def check_range(config: Backbone, field: str, low: float, high: float | None = None) -> None:
    """Refuse a field outside [low, high], naming configuration, field and value."""
    value = getattr(config, field)
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise UserError(f"{config.name}.{field}: expected a value {wanted}, got {value!r}")


def check_choice(config: Backbone, field: str, choices: Sequence[str]) -> None:
    """Refuse a field that is none of `choices`."""
    value = getattr(config, field)
    if value not in choices:
        raise UserError(f"{config.name}.{field}: expected one of {', '.join(choices)}, got {value!r}")
