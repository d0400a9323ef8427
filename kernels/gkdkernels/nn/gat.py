"""The layer of GAT (Velickovic et al. 2018), parameter by parameter that of `torch_geometric.nn.GATConv`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkdkernels.conversions import with_self_loops
from gkdkernels.gat.attention import gat_attention
from gkdkernels.gat.op import gat_aggregate
from gkdkernels.nn.edges import Edges, as_graph, glorot


class GATConv(nn.Module):
    """Heads of attention over in-neighbours and the node itself, concatenated or averaged.

    Parameters are `lin.weight` [heads out, in], `att_src` and `att_dst` [1, heads, out], and `bias`, as PyG's for one
    width of input. With dropout the mask is another draw than PyG's.

    Args:
        in_channels: width.
        out_channels: width of one head.
        heads: H.
        concat: [N, H out]; with False the mean of the heads, [N, out].
        negative_slope: of the leaky ReLU.
        dropout: of the coefficients, while training.
        add_self_loops: one at every node; with False edges are taken as they are.
        bias: with a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.negative_slope, self.dropout, self.add_self_loops = negative_slope, dropout, add_self_loops
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.empty(heads * out_channels if concat else out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights and no bias."""
        for weight in (self.lin.weight, self.att_src, self.att_dst):
            glorot(weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, edge_index: Edges, *, key: int | None = None, return_attention_weights: bool | None = None
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """[N, H out] or [N, out]; with `return_attention_weights` also (edge_index [2, E'], coefficients [E', H]).

        The coefficients are those before dropout, of the edges with their loops, in the graph's order, and have a
        gradient.

        Args:
            x: [N, in] float.
            edge_index: [2, E], or a square `CSRGraph`.
            key: of the dropout mask; None draws one from torch's generator.

        Raises:
            ValueError: shapes that do not fit.
        """
        graph, _ = as_graph(edge_index, x.size(0), x.size(0))
        if self.add_self_loops:
            graph, _ = with_self_loops(graph)
        h = self.lin(x).view(-1, self.heads, self.out_channels)
        el, er = (h * self.att_src).sum(-1), (h * self.att_dst).sum(-1)
        dropout = self.dropout if self.training else 0.0
        if dropout > 0 and key is None:
            key = int(torch.randint(1 << 31, ()))
        y = gat_aggregate(graph, h, el, er, negative_slope=self.negative_slope, dropout=dropout, key=key)
        y = y.flatten(1) if self.concat else y.mean(1)
        y = y if self.bias is None else y + self.bias
        if not return_attention_weights:
            return y
        return y, (torch.stack([graph.index, graph.row]), gat_attention(graph, el, er, self.negative_slope))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}"
