"""Positional encodings of the nodes of a graph: the eigenvectors of its Laplacian (Dwivedi et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks.encodings import beside

AT_ONCE = 1 << 22
"""Matrix entries that are decomposed in one batch."""


@dataclass(frozen=True)
class LaplacianEncoder:
    """Turns Inputs of a graph task into Inputs with an encoding next to the features (`Predictor.prepare`).

    Args:
        dim: columns that are added.
    """

    dim: int

    def __call__(self, inputs: Inputs) -> Inputs:
        """`inputs` with features [N, D + dim], each graph's from its own edges alone."""
        return replace(inputs, features=beside(inputs.features, laplacian_encodings(inputs, self.dim)))


def laplacian_encodings(inputs: Inputs, dim: int) -> Tensor:
    """[N, dim] float32 eigenvectors of ``I - D^-1/2 A D^-1/2`` of each graph, lowest eigenvalues first.

    The first one, of eigenvalue 0, is left out; graphs with fewer nodes have zeros in the last columns. The first entry
    of largest magnitude is positive. Within a repeated eigenvalue the basis is the solver's.
    """
    segments = inputs.segments
    if segments is None:
        raise ValueError("laplacian_encodings: expected inputs of a graph task, got a single graph")
    sizes = segments.diff()
    found = torch.zeros(len(inputs.space), dim, device=sizes.device)
    for size in torch.unique(sizes[sizes > 1]).tolist():
        alike = (sizes == size).nonzero().flatten()
        for graphs in alike.split(max(AT_ONCE // size**2, 1)):
            vectors = _vectors(inputs, graphs, size, dim)
            rows = segments[graphs][:, None] + torch.arange(size, device=sizes.device)  # [B, n]
            found[rows.flatten(), : vectors.size(2)] = vectors.flatten(0, 1).float()
    return found


def _vectors(inputs: Inputs, graphs: Tensor, size: int, dim: int) -> Tensor:
    """[B, n, min(dim, n - 1)] float64 of `graphs` ([B]), all of n nodes."""
    batch = inputs.take(graphs)
    row, index = batch.graph.row.long(), batch.graph.index.long()
    slot = row // size  # all graphs of the batch have this size
    adjacency = torch.zeros(graphs.numel(), size, size, dtype=torch.float64, device=row.device)
    adjacency[slot, row % size, index % size] = 1.0
    adjacency = torch.maximum(adjacency, adjacency.mT)
    root = adjacency.sum(2)
    root = torch.where(root > 0, root.rsqrt(), 0.0)
    laplacian = torch.eye(size, dtype=torch.float64, device=row.device) - root[:, :, None] * adjacency * root[:, None]
    vectors: Tensor = torch.linalg.eigh(laplacian).eigenvectors[:, :, 1 : dim + 1]
    size_of = vectors.abs()
    # of entries that are equal but for rounding the first decides, whatever the solver's last digits
    leading = (size_of >= size_of.amax(dim=1, keepdim=True) * (1 - 1e-6)).int().argmax(dim=1, keepdim=True)
    return vectors * torch.where(vectors.gather(1, leading) < 0, -1.0, 1.0)
