"""A GNN whose hidden nodes are replaced by codes of a learned codebook: VQGraph's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, Features, gcn_weight, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear, feature_product, uniform
from gkdbench.nn.model import Backbone, Model, Trace, check_range, need_graph
from gkdbench.nn.parts import KeyedDropout
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class VQConfig(Backbone):
    """Graph convolution to D_in, the nearest code by cosine in its place, a decoder, graph convolution, linear layer
    (Yang et al. 2024, section 4.1).

    Args:
        codes: in the codebook, each D_in wide.
        hidden: width of the second convolution.
        dropout: after the first convolution's ReLU.
    """

    name: ClassVar[str] = "vq"
    paper: ClassVar[str] = "Yang et al., VQGraph: Rethinking Graph Representation Space, ICLR 2024"
    revision: ClassVar[int] = 1

    codes: int = 5000
    hidden: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "codes", 1)
        check_range(self, "hidden", 1)
        check_range(self, "dropout", 0, 1)

    @property
    def hops(self) -> int:
        return 2

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> VQ:
        return VQ(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        encode = nnz * in_features + num_edges * in_features
        nearest = num_nodes * self.codes * in_features
        decode = num_nodes * in_features * (in_features + self.hidden) + num_edges * self.hidden
        return encode + nearest + decode + num_nodes * self.hidden * out_features


class Tokens(NamedTuple):
    """What the first half makes of the nodes.

    Args:
        h: [N, D] before the codebook.
        code: [N] int64, the nearest of each node.
        quantised: [N, D] that code, with the gradient of h.
        decoded: [N, D] what the second convolution reads.
    """

    h: Tensor
    code: Tensor
    quantised: Tensor
    decoded: Tensor


class _Nearest(NamedTuple):
    """A question to the codebook, and its answer: rows [N, D], codes [K, D] and how often they had been written, the
    nearest code [N] of each row."""

    h: Tensor
    codes: Tensor
    version: int
    code: Tensor

    def answers(self, h: Tensor, codes: Tensor) -> bool:
        """Whether `h` and `codes` are the question's."""
        same_codes = codes is self.codes and codes._version == self.version
        return same_codes and h.shape == self.h.shape and h.dtype == self.h.dtype and torch.equal(h, self.h)


class VQ(Model):
    """The module of `VQConfig`. A forward never changes the codebook: training calls `update_codes`.

    Attributes:
        codes: [K, D] float.
    """

    codes: Tensor

    def __init__(self, config: VQConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        width = in_features
        self.encoder = FeatureLinear(in_features, width, name="encoder", randomness=randomness)
        self.dropout = KeyedDropout(config.dropout, name="dropout", randomness=randomness)
        self.register_buffer("codes", F.normalize(uniform((config.codes, width), 1.0, randomness, "codes"), dim=1))
        self.decoder = FeatureLinear(width, width, name="decoder", randomness=randomness, init="torch")
        self.second = FeatureLinear(width, config.hidden, name="second", randomness=randomness)
        self.head = FeatureLinear(config.hidden, out_features, name="head", randomness=randomness, init="torch")
        self._last: _Nearest | None = None

    def encoded(self, x: Features, graph: CSRGraph) -> Tensor:
        """[N, D] the hidden layer before the codebook, of ``x: [N, D]``."""
        h: Tensor = self.dropout(convolved(self.encoder, x, graph).relu())
        return h

    def tokens(self, x: Features, graph: CSRGraph) -> Tokens:
        """The first half on ``x: [N, D]``."""
        h = self.encoded(x, graph)
        code = self._nearest(h.detach())
        quantised = h + (self.codes[code] - h).detach()
        return Tokens(h, code, quantised, self.decoder(quantised))

    def _nearest(self, h: Tensor) -> Tensor:
        """[N] int64 the nearest code of each row; the last answer when neither the rows nor the codes have changed.

        N K D multiply-adds, half of an epoch: without dropout, the step after a validation asks for the same.
        """
        if self._last is None or not self._last.answers(h, self.codes):
            code = cosine_scores(h, self.codes).argmax(dim=1)
            self._last = _Nearest(h, self.codes, self.codes._version, code)
        return self._last.code

    def logits(self, decoded: Tensor, graph: CSRGraph) -> Tensor:
        """[N, C] the second half on ``decoded: [N, D]``."""
        logits: Tensor = self.head(convolved(self.second, decoded, graph).relu())
        return logits

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        graph = need_graph(graph, "VQ")
        return Trace(self.logits(self.tokens(x, graph).decoded, graph), ())

    @torch.no_grad()
    def update_codes(self, tokens: Tokens, decay: float) -> None:
        """Move every code that has nodes towards the direction of their mean: ``decay c + (1 - decay) mean``."""
        count = torch.bincount(tokens.code, minlength=self.codes.size(0))
        total = torch.zeros_like(self.codes).index_add_(0, tokens.code, F.normalize(tokens.h.detach(), dim=1))
        used = count > 0
        self.codes[used] = self.codes[used].lerp(F.normalize(total[used], dim=1), 1 - decay)

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())


def convolved(linear: FeatureLinear, x: Features, graph: CSRGraph) -> Tensor:
    """[N, out] ``A_hat x W + b`` of ``x: [N, in]``."""
    y = feature_product(x, linear.weight)
    return linear.shifted(spmm(graph, y, gcn_weight(graph, y.dtype)))


def cosine_scores(x: Tensor, codes: Tensor) -> Tensor:
    """[N, K] cosines of ``x: [N, D]`` and ``codes: [K, D]``."""
    return F.normalize(x, dim=1) @ F.normalize(codes, dim=1).T


def distance_scores(x: Tensor, codes: Tensor) -> Tensor:
    """[N, K] negative Euclidean distances of ``x: [N, D]`` and ``codes: [K, D]``."""
    if codes.requires_grad or max(x.size(0), codes.size(0)) <= FEW:
        return -torch.cdist(x, codes)
    distance: Tensor = _Distances.apply(x, codes)  # type: ignore[no-untyped-call]
    return -distance


FEW = 25
"""Up to so many rows on both sides `torch.cdist` takes differences; beyond, one matrix product."""


class _Distances(torch.autograd.Function):
    """`torch.cdist` by a matrix product, to codes that have no gradient: to the bit its gradient, without the product
    for the codes that torch computes and throws away (a third of the whole)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor) -> Tensor:
        distance = torch.cdist(x, codes)
        ctx.save_for_backward(x, codes, distance)
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        x, codes, distance = ctx.saved_tensors
        ratio = (g / distance).masked_fill_(distance == 0, 0)
        return x * ratio.sum(-1, keepdim=True) - ratio @ codes, None
