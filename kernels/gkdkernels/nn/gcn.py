"""The layer of GCN (Kipf & Welling 2017), parameter by parameter that of `torch_geometric.nn.GCNConv`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkdkernels.conversions import with_self_loops
from gkdkernels.graph import CSRGraph, tensor_rows
from gkdkernels.nn.edges import Edges, as_graph, glorot
from gkdkernels.spmm.op import NodeNorm, gcn_norm, spmm


class GCNConv(nn.Module):
    """``D^-1/2 (A + I) D^-1/2 X W + b``, where D sums the weights of in-edges.

    Parameters are `lin.weight` [out, in] and `bias` [out], so that state dicts of PyG's layer load, both ways.

    Args:
        in_channels, out_channels: widths.
        cached: keep the normalised graph of the first call for all later ones, whatever edges they pass.
        add_self_loops: one at every node, of weight 1 where there is none.
        normalize: with False the weights are used as they are, and no loops are added.
        bias: with a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.cached, self.add_self_loops, self.normalize = cached, add_self_loops, normalize
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights and no bias; forgets the kept graph."""
        glorot(self.lin.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._kept: tuple[CSRGraph, Tensor | NodeNorm | None] | None = None

    def forward(self, x: Tensor, edge_index: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """[N, out].

        Args:
            x: [N, in] float.
            edge_index: [2, E], or a square `CSRGraph`.
            edge_weight: [E] float in the order of `edge_index` (of a graph: of its `index`), may need a gradient.

        Raises:
            ValueError: shapes that do not fit.
        """
        kept = self._kept
        if kept is None:
            graph, weight = as_graph(edge_index, x.size(0), x.size(0), edge_weight)
            weight = None if weight is None else weight.to(x.dtype)
            kept = _normalised(graph, weight, x.dtype, self.add_self_loops) if self.normalize else (graph, weight)
            if self.cached:
                self._kept = kept
        y = spmm(kept[0], self.lin(x), kept[1])
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


def _normalised(
    graph: CSRGraph, weight: Tensor | None, dtype: torch.dtype, loops: bool
) -> tuple[CSRGraph, Tensor | NodeNorm]:
    """The graph and its weights ``w_e / sqrt(d_i d_j)``; 0 at a node whose weights sum to 0."""
    if loops:
        graph, weight = with_self_loops(graph, weight)
    if weight is None and graph.symmetric:
        return graph, gcn_norm(graph)  # degrees of rows and columns are the same
    if weight is None:
        weight = torch.ones(graph.num_edges, dtype=dtype, device=graph.device)
    degree = spmm(graph, weight.new_ones(graph.num_src, 1), weight).squeeze(1)
    nothing = degree == 0
    root = torch.where(nothing, 0, torch.where(nothing, 1, degree).pow(-0.5))  # no infinite gradient at 0
    return graph, tensor_rows(root, graph.row) * weight * tensor_rows(root, graph.index)
