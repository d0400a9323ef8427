"""Maps that make a student's features comparable with a teacher's; used in training alone, not deployed."""

from __future__ import annotations

import torch
from gkdkernels import CSRGraph, gcn_weight, spmm
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.parts import BatchNorm
from gkdbench.nn.random import Randomness


class Projection(nn.Module):
    """``ReLU(BatchNorm(W h))``, or with `over_graph` ``ReLU(BatchNorm(A_hat W h))`` (Joshi et al. 2022)."""

    def __init__(self, width: int, out: int, *, name: str, randomness: Randomness, over_graph: bool = False) -> None:
        super().__init__()
        self.linear = FeatureLinear(width, out, name=name, randomness=randomness, bias=False, init="torch")
        self.norm = BatchNorm(out)
        self.over_graph = over_graph

    def forward(self, h: Tensor, graph: CSRGraph | None = None) -> Tensor:
        """[M, out] from ``h: [M, width]``; `graph` joins the M rows."""
        y = self.linear(h)
        if self.over_graph:
            if graph is None:
                raise UserError(
                    "a projection over the graph: expected node features, got features of graphs; for graph tasks "
                    "take one without"
                )
            y = spmm(graph, y, gcn_weight(graph, y.dtype))
        out: Tensor = torch.relu(self.norm(y))
        return out
