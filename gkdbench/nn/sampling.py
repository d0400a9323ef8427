"""Neighbour sampling for training on mini-batches of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from gkdkernels import CSRGraph
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampledBlocks:
    """The computation graph of a batch.

    Args:
        rows: [num_src of the first block] int64, the nodes whose features are read; they start with the batch.
        blocks: per layer, from input to output; in each, destinations are the first rows of the sources.
    """

    rows: Tensor
    blocks: tuple[CSRGraph, ...]


class NeighbourSampler:
    """Draws up to a fan-out of in-neighbours per node and layer (Hamilton et al. 2017, section 3.1).

    Each node keeps ``min(fan-out, degree)`` of its in-edges, drawn uniformly without replacement, again in every layer.

    Args:
        graph: square.
        fanouts: per layer, from input to output; at least 1 each.
    """

    def __init__(self, graph: CSRGraph, fanouts: Sequence[int]) -> None:
        if graph.num_src != graph.num_dst:
            raise ValueError(f"graph: expected a square graph, got {graph.num_dst} x {graph.num_src}")
        if not fanouts or min(fanouts) < 1:
            raise ValueError(f"fanouts: expected one number of at least 1 per layer, got {list(fanouts)}")
        self.graph, self.fanouts = graph, tuple(fanouts)

    def sample(self, batch: Tensor, key: int) -> SampledBlocks:
        """The blocks below ``batch: [B]`` (int64, no repeats); a function of (batch, key)."""
        generator = torch.Generator(self.graph.device).manual_seed(key)
        rows, blocks = batch, []
        for fanout in reversed(self.fanouts):
            block, rows = self._layer(rows, fanout, generator)
            blocks.append(block)
        return SampledBlocks(rows, tuple(reversed(blocks)))

    def _layer(self, rows: Tensor, fanout: int, generator: torch.Generator) -> tuple[CSRGraph, Tensor]:
        device = self.graph.device
        start, degree = self.graph.indptr[rows].long(), self.graph.degree[rows].long()
        first = degree.cumsum(0) - degree  # [R] where each row's candidates begin
        row = torch.repeat_interleave(torch.arange(rows.numel(), device=device), degree)
        place = torch.arange(row.numel(), device=device)
        # sorting by row + U(0, 1) shuffles within rows: the first `fanout` of a row are a draw without replacement
        order = (row + torch.rand(row.numel(), generator=generator, dtype=torch.float64, device=device)).argsort()
        chosen = order[place - first[row] < fanout].sort().values
        source = self.graph.index[start[row[chosen]] + chosen - first[row[chosen]]].long()

        fresh = torch.zeros(self.graph.num_src, dtype=torch.bool, device=device)
        fresh[source] = True
        fresh[rows] = False
        nodes = torch.cat([rows, fresh.nonzero().squeeze(1)])
        local = torch.empty(self.graph.num_src, dtype=torch.int64, device=device)
        local[nodes] = torch.arange(nodes.numel(), device=device)
        indptr = torch.zeros(rows.numel() + 1, dtype=torch.int64, device=device)
        indptr[1:] = degree.clamp(max=fanout).cumsum(0)
        return CSRGraph.trusted(indptr, local[source], int(nodes.numel())), nodes
