"""The layer of GraphSAGE (Hamilton et al. 2017), parameter by parameter that of `torch_geometric.nn.SAGEConv`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gkdkernels.nn.edges import Edges, as_graph
from gkdkernels.spmm.op import spmm

_REDUCES = {"mean": "mean", "sum": "sum", "add": "sum", "max": "max"}


class SAGEConv(nn.Module):
    """``lin_l(aggregate of in-neighbours) + lin_r(x)``.

    Parameters are `lin_l.weight`, `lin_l.bias` and `lin_r.weight`, as PyG's. The maximum gives a tie's gradient to one
    edge, the lowest, where PyG shares it among all.

    Args:
        in_channels: width, or (width of sources, width of destinations).
        out_channels: width.
        aggr: "mean", "sum" (or "add") or "max".
        normalize: divide each row by its length.
        root_weight: with `lin_r`.
        bias: with a bias.

    Raises:
        ValueError: another aggregation.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: str = "mean",
        *,
        normalize: bool = False,
        root_weight: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if aggr not in _REDUCES:
            raise ValueError(f"aggr: expected one of {', '.join(_REDUCES)}, got {aggr!r}")
        source, own = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        self.out_channels, self.aggr, self.normalize = out_channels, aggr, normalize
        self.lin_l = nn.Linear(source, out_channels, bias=bias)
        self.lin_r = nn.Linear(own, out_channels, bias=False) if root_weight else None

    def reset_parameters(self) -> None:
        """Draw the weights anew, as `torch.nn.Linear` does."""
        self.lin_l.reset_parameters()
        if self.lin_r is not None:
            self.lin_r.reset_parameters()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], edge_index: Edges) -> Tensor:
        """[num_dst, out].

        Args:
            x: [N, in] float, or (sources [num_src, in], destinations [num_dst, in]) for a sampled block.
            edge_index: [2, E], or a `CSRGraph`.

        Raises:
            ValueError: shapes that do not fit.
        """
        source, own = (x, x) if isinstance(x, Tensor) else x
        graph, _ = as_graph(edge_index, own.size(0), source.size(0))
        y: Tensor = self.lin_l(spmm(graph, source, reduce=_REDUCES[self.aggr]))
        if self.lin_r is not None:
            y = y + self.lin_r(own)
        return F.normalize(y, dim=-1) if self.normalize else y

    def extra_repr(self) -> str:
        return f"{self.lin_l.in_features}, {self.out_channels}, aggr={self.aggr}"
