"""What a module takes for edges: PyG's `edge_index`, or a `CSRGraph` that was made once."""

from __future__ import annotations

from torch import Tensor, nn

from gkdkernels.graph import CSRGraph, tensor_rows

Edges = Tensor | CSRGraph
"""``[2, E]`` int, sources and destinations, sorted anew at every call; or a graph, which keeps what it computes."""


def as_graph(edges: Edges, num_dst: int, num_src: int, weight: Tensor | None = None) -> tuple[CSRGraph, Tensor | None]:
    """The graph, and weights [E] in its order; with a `CSRGraph` they are in that order already.

    Raises:
        ValueError: edges of another shape or size, or a weight that is not one number per edge.
    """
    if isinstance(edges, Tensor):
        graph = CSRGraph.from_edge_index(edges, (num_dst, num_src))
    elif isinstance(edges, CSRGraph):
        graph = edges
    else:
        raise ValueError(f"edge_index: expected a tensor [2, E] or a CSRGraph, got {type(edges).__name__}")
    if (graph.num_dst, graph.num_src) != (num_dst, num_src):
        raise ValueError(
            f"edge_index: expected a graph of {num_dst} destinations and {num_src} sources, as x has rows, got {graph}"
        )
    if weight is None:
        return graph, None
    if weight.shape != (graph.num_edges,):
        raise ValueError(f"edge_weight: expected shape [{graph.num_edges}], got {tuple(weight.shape)}")
    return graph, tensor_rows(weight, graph.edge_order) if isinstance(edges, Tensor) else weight


def glorot(weight: Tensor) -> None:
    """Uniform of variance 2 / (rows + columns), of the last two dimensions, as PyG draws it."""
    bound = (6.0 / (weight.size(-2) + weight.size(-1))) ** 0.5
    nn.init.uniform_(weight, -bound, bound)
