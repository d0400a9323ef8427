"""Edge features in messages that are linear in them: summed per node before any layer multiplies them."""

from __future__ import annotations

from gkdkernels import CSRGraph, segment_sum
from torch import Tensor

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.random import Randomness


def edge_sums(graph: CSRGraph, edges: Tensor, weight: Tensor | None = None) -> Tensor:
    """[num_dst, F] ``sum_{e: j -> i} w_e f_e``; for one-hot features and no weight: how many edges of each kind.

    Args:
        edges: [E, F] in the order of ``graph.index``.
        weight: [E], or None for ones.
    """
    if edges.size(0) != graph.num_edges:
        raise ValueError(f"edges: expected one row for each of {graph.num_edges} edges, got {edges.size(0)}")
    return segment_sum(edges if weight is None else edges * weight[:, None], graph.indptr)


def edge_linear(edge_width: int, out_features: int, *, name: str, randomness: Randomness) -> FeatureLinear | None:
    """The map V of a layer called `name`, without a bias; None where edges have no features."""
    if edge_width == 0:
        return None
    return FeatureLinear(
        edge_width, out_features, name=f"{name}.edges", randomness=randomness, bias=False, init="torch"
    )
