"""Graph attention network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from gkdkernels import CSRGraph, Features, gat_aggregate
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear, feature_product, uniform
from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT, Backbone, BlockModel, Trace, check_choice, check_range
from gkdbench.nn.parts import ACTIVATIONS, NORMS, Activation, KeyedDropout, Norm, norm_layer
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class GATConfig(Backbone):
    """Multi-head attention layers; hidden heads are concatenated, output heads averaged.

    Args:
        head_width: features of one hidden head; a hidden layer has ``heads * head_width``.
        heads: of the hidden layers.
        out_heads: of the last layer.
        layers: number of attention layers.
        dropout: on the input of every layer, the features included.
        attention_dropout: on the coefficients.
        value_dropout: on the transformed features that are summed, not on the scores made of them; the official code of
            Velickovic et al. has it, most re-implementations do not.
        head_dropout: each head drops its own input, instead of all heads the same one; as `value_dropout`, from the
            official code.
        negative_slope: of the score's leaky ReLU.
        norm: between layer and activation.
        activation: between layers.
        residual: adds skips (Velickovic et al., PPI).
        skips: where and which: "linear", to every layer; "inner", to every layer but the first; "identity", as "inner",
            with nothing learned where the input is as wide as one head's output, as DGL's layers have them.
    """

    name: ClassVar[str] = "gat"
    paper: ClassVar[str] = "Velickovic et al., Graph Attention Networks, ICLR 2018"
    revision: ClassVar[int] = 2  # at a score of exactly 0 the gradient takes `negative_slope`; before, 1

    head_width: int = 8
    heads: int = 8
    out_heads: int = 1
    layers: int = 2
    dropout: float = 0.6
    attention_dropout: float = 0.6
    value_dropout: float = 0.0
    negative_slope: float = 0.2
    norm: Norm = "none"
    activation: Activation = "elu"
    residual: bool = False
    head_dropout: bool = field(default=False, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    skips: Literal["linear", "inner", "identity"] = field(default="linear", metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def __post_init__(self) -> None:
        for name in ("head_width", "heads", "out_heads", "layers"):
            check_range(self, name, 1)
        for name in ("dropout", "attention_dropout", "value_dropout", "negative_slope"):
            check_range(self, name, 0, 1)
        check_choice(self, "norm", NORMS)
        check_choice(self, "activation", tuple(ACTIVATIONS))
        check_choice(self, "skips", ("linear", "inner", "identity"))

    def skip_maps(self, in_features: int, out_features: int) -> dict[int, tuple[int, int] | None]:
        """Layer -> widths (in, out) of its linear skip, None for an identity; layers without a skip are absent."""
        if not self.residual:
            return {}
        shapes = self.shapes(in_features, out_features)
        widths = [*(heads * features for _, heads, features in shapes[:-1]), out_features]
        maps = {layer: (shape[0], width) for layer, (shape, width) in enumerate(zip(shapes, widths, strict=True))}
        first = 0 if self.skips == "linear" else 1
        free = self.skips == "identity"
        return {at: None if free and pair[0] == shapes[at][2] else pair for at, pair in maps.items() if at >= first}

    def shapes(self, in_features: int, out_features: int) -> list[tuple[int, int, int]]:
        """Per layer: width of the input, heads, features of a head."""
        inner = self.heads * self.head_width
        inputs = [in_features, *[inner] * (self.layers - 1)]
        outputs = [*[(self.heads, self.head_width)] * (self.layers - 1), (self.out_heads, out_features)]
        return [(width, *output) for width, output in zip(inputs, outputs, strict=True)]

    @property
    def hops(self) -> int:
        return self.layers

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> BlockModel:
        return GAT(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        total, skips = 0, self.skip_maps(in_features, out_features)
        for layer, (width, heads, features) in enumerate(self.shapes(in_features, out_features)):
            inputs = nnz if layer == 0 else num_nodes * width
            skip = skips.get(layer)
            total += inputs * (heads * features + (skip[1] if skip else 0))
            total += (2 * num_nodes + num_edges) * heads * features  # scores, then the weighted sum
        return total


class GATLayer(nn.Module):
    """One attention layer, [num_dst, heads, features]; each head is a layer of its own for the Glorot bounds."""

    def __init__(
        self,
        in_features: int,
        heads: int,
        features: int,
        *,
        negative_slope: float,
        attention_dropout: float,
        value_dropout: float,
        head_dropout: float,
        name: str,
        randomness: Randomness,
    ) -> None:
        super().__init__()
        self.heads, self.features, self.name, self.randomness = heads, features, name, randomness
        self.negative_slope, self.attention_dropout = negative_slope, attention_dropout
        self.value_dropout = KeyedDropout(value_dropout, name=f"{name}.value", randomness=randomness)
        self.head_dropouts = nn.ModuleList(
            KeyedDropout(head_dropout, name=f"{name}.heads.{head}", randomness=randomness)
            for head in range(heads)
            if head_dropout
        )
        gain = math.sqrt((in_features + heads * features) / (in_features + features))  # bound of one head's matrix
        self.linear = FeatureLinear(
            in_features, heads * features, name=f"{name}.linear", randomness=randomness, bias=False, gain=gain
        )
        bound = math.sqrt(6 / (features + 1))
        self.source = nn.Parameter(uniform((heads, features), bound, randomness, f"{name}.source"))
        self.target = nn.Parameter(uniform((heads, features), bound, randomness, f"{name}.target"))

    def forward(self, x: Features, graph: CSRGraph) -> Tensor:
        """[num_dst, heads, features] from ``x: [num_src, in]``; destinations are the first rows of the sources."""
        h, el, er = self._scored(x)
        out: Tensor = gat_aggregate(
            graph,
            self.value_dropout(h).view(-1, self.heads, self.features),
            el,
            er[: graph.num_dst],
            negative_slope=self.negative_slope,
            dropout=self.attention_dropout if self.training else 0.0,
            key=self.randomness.key(f"{self.name}.attention"),
        )
        return out

    def _scored(self, x: Features) -> tuple[Tensor, ...]:
        """Features [num_src, H * F] and the scores' two parts [num_src, H] each, of all heads.

        A score is linear in x: its columns W a are appended to W, and one product of x makes features and scores.
        """
        heads, features = self.heads, self.features
        weight = self.linear.weight.view(-1, heads, features)  # [in, H, F]
        scores = [(weight * a).sum(-1) for a in (self.source, self.target)]  # [in, H] each
        if not self.head_dropouts or not self.training:
            joint = feature_product(x, torch.cat([self.linear.weight, *scores], 1))
            return torch.split(joint, [heads * features, heads, heads], 1)
        parts = []
        for head, dropout in enumerate(self.head_dropouts):
            columns = torch.cat([weight[:, head], *(score[:, head : head + 1] for score in scores)], 1)  # [in, F + 2]
            parts.append(torch.split(feature_product(dropout(x), columns), [features, 1, 1], 1))
        return tuple(torch.cat(part, 1) for part in zip(*parts, strict=True))


class GAT(BlockModel):
    """The module of `GATConfig`."""

    def __init__(self, config: GATConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        shapes = config.shapes(in_features, out_features)
        self.depth = config.layers
        widths = [*(heads * features for _, heads, features in shapes[:-1]), out_features]
        self.convs = nn.ModuleList(
            GATLayer(
                *shape,
                negative_slope=config.negative_slope,
                attention_dropout=config.attention_dropout,
                value_dropout=config.value_dropout,
                head_dropout=config.dropout if config.head_dropout else 0.0,
                name=f"convs.{i}",
                randomness=randomness,
            )
            for i, shape in enumerate(shapes)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths)
        self.norms = nn.ModuleList(norm_layer(config.norm, width) for width in widths[:-1])
        self.dropouts = nn.ModuleList(
            KeyedDropout(0.0 if config.head_dropout else config.dropout, name=f"dropouts.{i}", randomness=randomness)
            for i in range(config.layers)
        )
        self.skips = nn.ModuleDict()
        for layer, widths_of_skip in config.skip_maps(in_features, out_features).items():
            self.skips[str(layer)] = (
                nn.Identity()
                if widths_of_skip is None
                else FeatureLinear(*widths_of_skip, name=f"skips.{layer}", randomness=randomness, bias=False)
            )
        self.activation = ACTIVATIONS[config.activation]

    def block_trace(self, x: Features, blocks: Sequence[CSRGraph]) -> Trace:
        hidden = []
        for layer, (conv, dropout, block) in enumerate(zip(self.convs, self.dropouts, blocks, strict=True)):
            x = dropout(x)
            heads = conv(x, block)  # [num_dst, heads, features]
            last = layer == self.depth - 1
            out = (heads.mean(1) if last else heads.flatten(1)) + self.biases[layer]
            if str(layer) in self.skips:
                out = out + self.skips[str(layer)](x)[: block.num_dst]
            if last:
                break
            hidden.append(self.norms[layer](out))
            x = self.activation(hidden[-1])
        return Trace(out, tuple(hidden))

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return [*self.convs[0].parameters(), self.biases[0]]
