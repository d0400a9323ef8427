"""One small graph with dense, sparse and mixed features, for every backbone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gkdkernels import CSRGraph, MixedFeatures, SparseFeatures
from torch import Tensor

NODES, WIDTH, CLASSES = 41, 13, 4


@dataclass(frozen=True)
class Scene:
    """Inputs of a backbone; nodes 0 and 40 have no edges."""

    graph: CSRGraph
    dense: Tensor
    sparse: SparseFeatures
    mixed: MixedFeatures
    segments: Tensor  # three graphs, the second empty


def make_scene() -> Scene:
    """The same scene at every call."""
    generator = torch.Generator().manual_seed(11)
    ends = torch.randint(1, NODES - 1, (2, 90), generator=generator)
    graph = CSRGraph.from_edge_index(torch.cat([ends, ends.flip(0)], 1), NODES, symmetric=True)
    dense = torch.randn(NODES, WIDTH, generator=generator)
    dense = torch.where(torch.rand(NODES, WIDTH, generator=generator) < 0.3, dense, 0.0)
    mixed = MixedFeatures(SparseFeatures.from_dense(dense[:, :10]), dense[:, 10:].contiguous())
    return Scene(graph, dense, SparseFeatures.from_dense(dense), mixed, torch.tensor([0, 17, 17, NODES]))
