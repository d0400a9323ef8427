"""GNN-SD-R: a GNN without a teacher, whose deeper layers keep the differences between neighbours of shallower ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, segment_mean, spmm
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.parts import ACTIVATIONS
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.mutual import JointForward, MutualTrainingSettings, build_peers, train_peers
from gkdbench.training.mutual_method import label_losses
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class GNNSD(SingleModelMethod):
    """``CE + alpha L_N + beta L_G``, one GNN that learns from its own shallower layers (Chen et al. 2021).

    ``S_v^l = 1 - cos(h_v^l, sum_{u in N(v)} h_u^l)`` measures how much node v differs from its neighbours at layer l.
    ``L_N = sum_{l >= l*} 1[|S^l| > |S^{l+1}|] mean_v (S_v^{l+1} - sg S_v^l)^2`` with ``l* = argmax |S^l|`` before the
    last layer: where the difference shrinks, the deeper layer is held to the shallower one. Layers are the hidden
    ones after their activation and, of nodes, the logits; neighbours are those of the graph as the split gives it,
    loops included. Graphs: ``L_G = sum_l mean (r^{l+1} - sg r^l)^2``, r the mean of a graph's nodes at a hidden layer.

    Args:
        alpha, beta: weights of L_N and L_G; 0 is the solo run, bit for bit.
    """

    name: ClassVar[str] = "gnnsd"
    paper: ClassVar[str] = (
        "reconstruction (GNN-SD-R) of Chen, Bian, Xiao, Rong, Xu, Huang, On Self-Distilling Graph Neural Network"
    )
    year: ClassVar[int | None] = 2021
    arxiv: ClassVar[str] = "2011.02255"
    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    deviations: ClassVar[tuple[str, ...]] = (
        "a reconstruction, there is no public code: the form of the readouts' term, means in the place of sums over "
        "nodes, the weights and the depth are ours",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"alpha": (0.0,), "beta": (0.0,)}

    backbone: str = "gcn"
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 1.0

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config = self.backbone_config()
        settings = MutualTrainingSettings(
            lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs, batch_size=self.batch_size
        )
        (peer,) = build_peers(view, ctx.seed, [config], settings)
        activation = getattr(config, "activation", "relu")
        losses = partial(self.losses, multi_label=view.multi_label, activation=activation)
        return train_peers(view, ctx, [replace(peer, name="model")], settings, losses)[0]

    def losses(
        self, joint: JointForward, *, multi_label: bool, activation: str = "relu"
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        (trace,), segments = joint.traces, joint.inputs.segments
        loss = label_losses(joint, joint.logits, multi_label=multi_label)
        if not self.alpha and not self.beta:
            return loss, {}
        layers = [ACTIVATIONS[activation](h) for h in trace.hidden]
        diagnostics = {"ce": loss[0]}
        if self.alpha:
            apart = discrepancies(joint.inputs.graph, layers if segments is not None else [*layers, trace.logits])
            diagnostics["kept"] = kept_discrepancy(apart)
            diagnostics |= {f"discrepancy.layer{number}": s.mean() for number, s in enumerate(apart, start=1)}
            loss = loss + self.alpha * diagnostics["kept"]
        if self.beta and segments is not None:
            diagnostics["readouts"] = matched([segment_mean(h, segments) for h in layers])
            loss = loss + self.beta * diagnostics["readouts"]
        return loss, diagnostics

    @property
    def label(self) -> str:
        return f"{'GNN-SD-R' if self.alpha or self.beta else 'solo (GNN-SD-R with no transfer)'}, {self.model_label()}"


def discrepancies(graph: CSRGraph, layers: Sequence[Tensor]) -> Tensor:
    """[L, N] ``1 - cos(h_v, sum of v's in-neighbours)`` of L layers [N, H_l]; 1 where either is 0.

    Raises:
        UserError: fewer than two layers: nothing is passed on.
    """
    if len(layers) < 2:
        raise UserError(f"GNN-SD: model.layers: expected two or more layers to pass on between, got {len(layers)}")
    return torch.stack([1 - F.cosine_similarity(h, spmm(graph, h), dim=1) for h in layers])


def kept_discrepancy(apart: Tensor) -> Tensor:
    """L_N of ``apart: [L, N]``."""
    size = apart.detach().norm(dim=1)
    layer = torch.arange(len(size) - 1, device=size.device)
    active = (layer >= size[:-1].argmax()) & (size[:-1] > size[1:])
    gaps = (apart[1:] - apart[:-1].detach()).square().mean(dim=1)
    found: Tensor = torch.where(active, gaps, 0.0).sum()
    return found


def matched(readouts: Sequence[Tensor]) -> Tensor:
    """L_G of L readouts [G, H]."""
    return torch.stack([F.mse_loss(b, a.detach()) for a, b in pairwise(readouts)]).sum()
