"""VQGraph's tokenizer: the teacher that its students learn codes and soft labels from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from gkdkernels.graph import tensor_rows
from torch import Tensor, nn

from gkdbench.errors import UserError
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.vq import VQ
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.loop import train
from gkdbench.training.losses import supervised
from gkdbench.training.models import as_predictor, build
from gkdbench.training.steps import adam, descend
from gkdbench.training.types import NonNegativeFloat, PositiveInt, UnitFloat


@dataclass(frozen=True, kw_only=True)
class VQTeacher(SingleModelMethod):
    """``CE + b MSE(h, W q) + g sqrt(MSE(A, minmax(q' q'^T))) + c MSE(h, sg[q])`` (Yang et al. 2024), full batch.

    q is the code in the place of h, q' what the decoder makes of it. ``as_released`` compares the whole N x N
    adjacency; ``corrected`` the edges and as many pairs of nodes that are none, drawn in every epoch.

    Args:
        node_weight: b. edge_weight: g. commitment: c. decay: of the codebook's moving average.
    """

    name: ClassVar[str] = "vqgraph_teacher"
    paper: ClassVar[str] = "Yang, Tian, Xu, Liu, Hong, Qu, Zhang, Cui, Zhang, Leskovec, VQGraph (the tokenizer)"
    year: ClassVar[int | None] = 2024
    arxiv: ClassVar[str] = "2308.02117"
    repository: ClassVar[str] = "YangLing0818/VQGraph"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "edges are reconstructed on sampled pairs; the official code compares a dense N x N adjacency",
        "one graph-convolution tokenizer, full batch; the official code calls one SAGE that runs it on sampled blocks",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10, "model": {"codes": 16}}

    backbone: Literal["vq"] = "vq"
    model: Mapping[str, Any] = field(default_factory=dict)
    epochs: PositiveInt = 100
    node_weight: NonNegativeFloat = 1e-3
    edge_weight: NonNegativeFloat = 0.03
    commitment: NonNegativeFloat = 0.25
    decay: UnitFloat = 0.8

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        if self.batch_size is not None:
            raise UserError(
                f"vqgraph_teacher: batch_size: expected None, got {self.batch_size}; it reads the whole graph"
            )
        config = self.backbone_config()
        model = build(config, view, seed=ctx.seed)
        if not isinstance(model, VQ):
            raise TypeError(f"vqgraph_teacher: expected a model with a codebook, got {type(model).__name__}")
        predictor = as_predictor(config, model, view.num_classes)
        width = view.num_features
        back = FeatureLinear(width, width, name="back", randomness=model.randomness, init="torch").to(view.device)
        optimiser = adam(nn.ModuleList([model, back]), lr=self.lr, weight_decay=self.weight_decay)
        graph = view.inputs.graph
        parts: dict[str, Tensor] = {}

        def loss() -> Tensor:
            tokens = model.tokens(view.inputs.features, graph)
            logits = model.logits(tokens.decoded, graph)[view.train.position]
            parts.clear()
            parts["ce"] = supervised(logits, view.labels, multi_label=view.multi_label)
            if self.node_weight and width:
                parts["nodes"] = self.node_weight * F.mse_loss(back(tokens.quantised), tokens.h)
            if self.edge_weight:
                parts["edges"] = self.edge_weight * self._edges(tokens.decoded, graph, model.randomness.key("pairs"))
            if self.commitment and width:
                parts["commitment"] = self.commitment * F.mse_loss(tokens.h, tokens.quantised.detach())
            model.update_codes(tokens, self.decay)
            return torch.stack(list(parts.values())).sum()

        def step(epoch: int) -> dict[str, float]:
            total = descend(model, optimiser, loss)
            return {"loss": total, **{name: float(part.detach()) for name, part in parts.items()}}

        train(ctx, {"model": predictor}, step, epochs=self.epochs)
        with torch.no_grad():
            code = model.eval().tokens(view.inputs.features, graph).code
        ctx.extra["codes_used"] = float(len(set(code.tolist())))
        return Fitted({"model": predictor})

    def _edges(self, decoded: Tensor, graph: CSRGraph, key: int) -> Tensor:
        if self.as_released:
            return dense_reconstruction(decoded, graph)
        return sampled_reconstruction(decoded, graph, key)

    @property
    def label(self) -> str:
        return f"VQGraph's tokenizer, {self.model['codes']} codes"


def dense_reconstruction(decoded: Tensor, graph: CSRGraph) -> Tensor:
    """``sqrt(MSE(A, minmax(q' q'^T)))`` over all N^2 pairs; ``decoded: [N, D]``."""
    adjacency = torch.zeros(graph.num_dst, graph.num_src, device=decoded.device, dtype=decoded.dtype)
    adjacency[graph.row.long(), graph.index.long()] = 1
    return _distance(decoded @ decoded.T, adjacency)


def sampled_reconstruction(decoded: Tensor, graph: CSRGraph, key: int) -> Tensor:
    """The same over the E edges and E pairs of nodes, less those that happen to be edges; ``decoded: [N, D]``."""
    row, index, count = graph.row.long(), graph.index.long(), graph.num_dst
    generator = torch.Generator().manual_seed(key)
    drawn = torch.randint(count * count, (graph.num_edges,), generator=generator).to(decoded.device)
    drawn = drawn[~torch.isin(drawn, row * count + index)]
    first, second = torch.cat([row, drawn // count]), torch.cat([index, drawn % count])
    linked = torch.cat([torch.ones_like(row), torch.zeros_like(drawn)]).to(decoded.dtype)
    return _distance((tensor_rows(decoded, first) * tensor_rows(decoded, second)).sum(dim=1), linked)


def _distance(products: Tensor, linked: Tensor) -> Tensor:
    low, high = products.min(), products.max()
    scaled = (products - low) / (high - low).clamp_min(torch.finfo(products.dtype).tiny)
    return F.mse_loss(scaled, linked).sqrt()
