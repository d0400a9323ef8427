"""One item's answer from the nodes around it: the subgraph that a model of L hops reads, and its place in it."""

from __future__ import annotations

import torch
from gkdkernels.graph import CSRGraph, feature_rows
from torch import Tensor

from gkdbench.data.nodes import Space
from gkdbench.protocol.inputs import Inputs, ranges


def within_hops(inputs: Inputs, position: Tensor, hops: int) -> Tensor:
    """Nodes from which `position` ([M] int64) is reached in at most `hops` edges: ascending, [K] int64."""
    seen = torch.zeros(len(inputs.space), dtype=torch.bool, device=position.device)
    seen[position] = True
    frontier = position
    for _ in range(hops):
        found = torch.unique(inputs.graph.index[_edges_of(inputs, frontier)[0]].long())
        frontier = found[~seen[found]]
        if not len(frontier):
            break
        seen[frontier] = True
    return seen.nonzero().flatten()


def neighbourhood(inputs: Inputs, position: int, hops: int) -> tuple[Inputs, int]:
    """The subgraph around one node that determines an answer of `hops` hops, and the node's number in it.

    It holds the nodes within ``hops + 1`` edges, so that those ``hops`` away keep their degree, by which a GCN divides.
    Work grows with the edges of these nodes, not with those of the graph.

    Args:
        inputs: of a node task.
        position: of the node in ``inputs.space``.
    """
    nodes = within_hops(inputs, torch.tensor([position], device=inputs.graph.device), hops + 1)
    edges, borders = _edges_of(inputs, nodes)
    number = torch.full((len(inputs.space),), -1, dtype=torch.int64, device=nodes.device)
    number[nodes] = torch.arange(len(nodes), device=nodes.device)
    index = number[inputs.graph.index[edges].long()]
    keep = index >= 0
    kept_before = torch.zeros(len(edges) + 1, dtype=torch.int64, device=nodes.device)
    kept_before[1:] = keep.cumsum(0)
    graph = CSRGraph(kept_before[borders], index[keep], len(nodes), inputs.graph.symmetric)
    space = Space(f"{inputs.space.name}[{position} within {hops}]", inputs.space.ids[nodes])
    edge_features = None if inputs.edge_features is None else inputs.edge_features[edges[keep]]
    around = Inputs(space, space, graph, feature_rows(inputs.features, nodes), None, edge_features)
    return around, int(torch.searchsorted(nodes, position))


def _edges_of(inputs: Inputs, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Edges that end in `nodes`, [K] int64, row by row, and the rows' borders [len(nodes) + 1]."""
    indptr = inputs.graph.indptr.long()
    return ranges(indptr[nodes], indptr[nodes + 1] - indptr[nodes])
