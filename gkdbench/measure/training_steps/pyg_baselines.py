"""The peers of the joint step, built of PyG's layers as its examples stack them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gkdbench.measure.training_steps.gnn_steps import dense_features
from gkdbench.protocol.inputs import Inputs


def on_nodes(width: int, hidden: int, classes: int, dropout: float) -> list[nn.Module]:
    """GCN with its kept normalisation, on a graph that has its loops; GraphSAGE with means. Two layers each."""
    from torch_geometric.nn import GCNConv, SAGEConv

    widths = list(pairwise((width, hidden, classes)))
    gcn = [GCNConv(a, b, cached=True, add_self_loops=False) for a, b in widths]
    return [_Nodes(gcn, dropout, on_input=True), _Nodes([SAGEConv(a, b) for a, b in widths], dropout, on_input=False)]


def on_graphs(width: int, hidden: int, layers: int, classes: int) -> list[nn.Module]:
    """GIN that sums, GCN that takes means; BatchNorm after each layer, dropout 0.5."""
    from torch_geometric.nn import GCNConv, GINConv, global_add_pool, global_mean_pool

    widths = list(pairwise((width, *[hidden] * layers)))
    maps = [
        nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(), nn.Linear(b, b)) for a, b in widths
    ]
    gin = _Graphs([GINConv(one, train_eps=True) for one in maps], hidden, classes, global_add_pool, between=False)
    gcn = _Graphs([GCNConv(a, b) for a, b in widths], hidden, classes, global_mean_pool, between=True)
    return [gin, gcn]


def graphs(inputs: Inputs, labels: Tensor) -> list[Any]:
    """Each graph as PyG's ``Data``, with dense features."""
    from torch_geometric.data import Data

    found = []
    for graph, label in enumerate(labels):
        one = inputs.take(torch.tensor([graph]))
        edge_index = torch.stack([one.graph.index.long(), one.graph.row.long()])
        found.append(Data(x=dense_features(one.features), edge_index=edge_index, y=label[None]))
    return found


def batch(graphs: Sequence[Any]) -> tuple[tuple[Any, ...], Tensor]:
    """What a model reads of these graphs, and their classes."""
    from torch_geometric.data import Batch

    joined = Batch.from_data_list(list(graphs))
    return (joined.x, joined.edge_index, joined.batch), joined.y


class _Nodes(nn.Module):
    def __init__(self, convs: Sequence[nn.Module], dropout: float, *, on_input: bool) -> None:
        super().__init__()
        self.convs, self.dropout, self.on_input = nn.ModuleList(convs), nn.Dropout(dropout), on_input

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.convs[0](self.dropout(x) if self.on_input else x, edge_index)
        out: Tensor = self.convs[1](self.dropout(x.relu()), edge_index)
        return out


class _Graphs(nn.Module):
    def __init__(
        self,
        convs: Sequence[nn.Module],
        hidden: int,
        classes: int,
        pool: Callable[[Tensor, Tensor], Tensor],
        *,
        between: bool,
    ) -> None:
        super().__init__()
        self.convs, self.pool, self.between = nn.ModuleList(convs), pool, between
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in convs)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        for depth, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(self.dropout(x) if self.between and depth else x, edge_index)))
        out: Tensor = self.head(self.dropout(self.pool(x, batch)))
        return out
