"""Clusters of the nodes of every graph of a task by Louvain's method (Blondel et al. 2008)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gkdbench.protocol.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters within graphs.

    Args:
        of: [N] int64 cluster of each node, numbered from 0 in each graph, in the order of their first nodes.
        count: [G] int64 clusters of each graph.
    """

    of: Tensor
    count: Tensor


def louvain(inputs: Inputs, seed: int) -> Clusters:
    """The clusters of each graph of `inputs` (a graph task), edges taken in both directions.

    Args:
        seed: of the order in which nodes are moved.
    """
    import networkx  # type: ignore[import-untyped]  # comes with torch; heavy to import

    if inputs.segments is None:
        raise ValueError("louvain: expected inputs of a graph task, got a single graph")
    borders, edge_borders = inputs.segments.tolist(), inputs.graph.indptr[inputs.segments].tolist()
    edges = torch.stack([inputs.graph.index, inputs.graph.row]).cpu()
    of = torch.zeros(len(inputs.space), dtype=torch.int64)
    count = []
    for graph in range(len(borders) - 1):
        first, last = borders[graph : graph + 2]
        drawn = networkx.Graph()
        drawn.add_nodes_from(range(first, last))
        drawn.add_edges_from(edges[:, edge_borders[graph] : edge_borders[graph + 1]].T.tolist())
        found = sorted(networkx.community.louvain_communities(drawn, seed=seed), key=min)
        for number, members in enumerate(found):
            of[list(members)] = number
        count.append(len(found))
    device = inputs.graph.device
    return Clusters(of.to(device), torch.tensor(count, device=device))
