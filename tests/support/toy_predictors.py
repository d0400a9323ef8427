"""Methods of a few lines for tests of the session: each does one thing right or wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gkdbench.nn.random import Randomness
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView


class Linear(nn.Module):
    """``x W``, or ``A_loops x W`` summed over neighbours when `hops`; graph tasks: summed over a graph's nodes."""

    def __init__(self, view: TrainView, seed: int, hops: int = 0) -> None:
        super().__init__()
        shape = (view.num_features, view.num_classes)
        self.weight = nn.Parameter(torch.empty(shape).normal_(generator=Randomness(seed).initial("weight")))
        self.hops = hops

    def forward(self, features: Tensor, graph: Any, segments: Tensor | None) -> Tensor:
        z = features @ self.weight
        if self.hops:
            z = torch.zeros_like(z).index_add(0, graph.row.long(), z[graph.index.long()])
        if segments is None:
            return z
        owner = torch.repeat_interleave(torch.arange(segments.numel() - 1), segments.diff())
        return torch.zeros(segments.numel() - 1, z.size(1)).index_add(0, owner, z)


class Walk:
    """Adds keyed noise to the weights of `peers` linear models in every epoch; `hops` makes them read the graph."""

    def __init__(self, *, epochs: int = 4, peers: int = 1, hops: int = 0, scale: float = 1.0) -> None:
        self.epochs, self.peers, self.hops, self.scale = epochs, peers, hops, scale

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        names = ["model"] if self.peers == 1 else [f"peer{i}" for i in range(self.peers)]
        needs: Any = "graph" if self.hops else "features"
        models = {
            name: Predictor(Linear(view, ctx.seed + i, self.hops), needs=needs, hops=self.hops or None)
            for i, name in enumerate(names)
        }
        for epoch in range(1, self.epochs + 1):
            for i, model in enumerate(models.values()):
                noise = torch.empty_like(model.module.weight).normal_(
                    generator=Randomness(ctx.seed, i).initial(str(epoch))
                )
                with torch.no_grad():
                    model.module.weight.add_(self.scale * noise)
            if ctx.monitor.report(epoch, models, terms={"loss": 1 / epoch}).stop:
                break
        return Fitted(models, ensemble=self.peers > 1)


class Does:
    """Calls a function in `fit`."""

    def __init__(self, what: Callable[[TrainView, Context], Fitted]) -> None:
        self._what = what

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        return self._what(view, ctx)
