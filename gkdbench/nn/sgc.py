"""Simple graph convolution: a linear classifier on propagated features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from gkdkernels import CSRGraph, Features, SparseFeatures, gcn_weight, spmm
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear, feature_product
from gkdbench.nn.model import Backbone, Model, Trace, check_range
from gkdbench.nn.random import Randomness


@dataclass(frozen=True, kw_only=True)
class SGCConfig(Backbone):
    """``A_hat^hops X W + b``; without a graph, X is taken as propagated already.

    Args:
        hops: number of propagations.
    """

    name: ClassVar[str] = "sgc"
    paper: ClassVar[str] = "Wu et al., Simplifying Graph Convolutional Networks, ICML 2019"
    revision: ClassVar[int] = 1

    hops: int = 2

    def __post_init__(self) -> None:
        check_range(self, "hops", 0)

    def build(self, in_features: int, out_features: int, randomness: Randomness) -> Model:
        return SGC(self, in_features, out_features, randomness)

    def macs(self, in_features: int, out_features: int, num_nodes: int, num_edges: int, nnz: int) -> int:
        return (nnz + self.hops * num_edges) * out_features


class SGC(Model):
    """The module of `SGCConfig`; weights as in `nn.Linear`."""

    def __init__(self, config: SGCConfig, in_features: int, out_features: int, randomness: Randomness) -> None:
        super().__init__(randomness)
        self.hops = config.hops
        self.linear = FeatureLinear(in_features, out_features, name="linear", randomness=randomness, init="torch")

    def node_trace(self, x: Features, graph: CSRGraph | None) -> Trace:
        if graph is None:
            return Trace(self.linear(x), ())
        # associative: propagate C columns instead of the features
        y = propagate(feature_product(x, self.linear.weight), graph, self.hops)
        return Trace(self.linear.shifted(y), ())

    def first_layer_parameters(self) -> list[nn.Parameter]:
        return list(self.linear.parameters())


def propagate(x: Features, graph: CSRGraph, hops: int) -> Tensor:
    """[N, D] dense ``A_hat^hops x``, to be computed once before training.

    Args:
        x: [N, D]; a sparse matrix becomes dense, N * D numbers.
        graph: square, over the N nodes.
        hops: number of products.
    """
    if not isinstance(x, Tensor):
        x = x.dense() if isinstance(x, SparseFeatures) else torch.cat([x.sparse.dense(), x.dense], 1)
    for _ in range(hops):
        x = spmm(graph, x, gcn_weight(graph, x.dtype))
    return x
