"""Diagnostics of a mixture's routing: who is used, how evenly, for what, and how far memories moved."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gkdkernels import Features
from gkdkernels.experts.routing import routing_matrix
from torch import Tensor

from gkdbench.methods.mixture._losses import load
from gkdbench.nn.mixture import MixtureModel, Routing
from gkdbench.nn.model import parameter_count
from gkdbench.protocol.view import Context, TrainView


@torch.no_grad()
def diagnose(ctx: Context, view: TrainView, model: MixtureModel, features: Features, start: list[Tensor]) -> None:
    """Put the routing of all observed rows by the last weights into ``ctx.extra``.

    Per layer: ``load_<layer>_<expert>``, the share of (row, expert) pairs; ``routing_entropy_<layer>``, the mean
    entropy of a row's weights; ``expert_class_<layer>`` and ``expert_degree_<layer>``, the mutual information of expert
    and class (labelled rows, one label per item) and of expert and degree bin (0, 1, 2-3, 4-7, ... in-neighbours), all
    in nats; ``memory_drift_<layer>``, the mean over experts of ``1 - cos`` between the memory at the switch and the
    current one.
    For the model: ``parameters_total``, and ``parameters_active``, those that a row uses. An expert that no row uses is
    flagged "idle_expert".

    Args:
        features: [N, D] of the observed rows, as the model reads them.
        start: [E, D] per layer, memories right after the switch; empty where there are none, or no switch.
    """
    training = model.training
    routings = model.eval().node_trace(features, None).routings
    model.train(training)
    degree_bin = torch.log2(view.inputs.graph.degree.float() + 1).long()
    for depth, (layer, routing) in enumerate(zip(model.expert_layers, routings, strict=False)):
        experts = layer.weight.size(0)
        share = load(routing, experts) / routing.index.numel()
        ctx.extra |= {f"load_{depth}_{expert}": value for expert, value in enumerate(share.tolist())}
        weight = routing.alpha / routing.alpha.sum(1, keepdim=True)
        ctx.extra[f"routing_entropy_{depth}"] = float(-torch.xlogy(weight, weight).sum(1).mean())
        use = routing_matrix(routing.index, weight, experts)
        if not view.multi_label:
            ctx.extra[f"expert_class_{depth}"] = mutual_information(use[view.train.position], view.labels)
        ctx.extra[f"expert_degree_{depth}"] = mutual_information(use, degree_bin)
        if not bool(share.all()) and "idle_expert" not in ctx.flags:
            ctx.flags.append("idle_expert")
    for depth, (before, after) in enumerate(zip(start, model.router_tensors(), strict=False)):
        ctx.extra[f"memory_drift_{depth}"] = float(1 - F.cosine_similarity(before, after, dim=1).mean())
    ctx.extra |= _parameters(model, routings)


def _parameters(model: MixtureModel, routings: tuple[Routing, ...]) -> dict[str, float]:
    layers = model.expert_layers
    experts, used = layers[0].weight.size(0), routings[0].index.size(1) if routings else 1
    total = parameter_count(model) + sum(memory.numel() for memory in model.router_tensors())
    of_experts = sum(p.numel() for layer in layers for p in (layer.weight, layer.bias, layer.gate) if p is not None)
    unused = of_experts * (experts - used) // experts
    return {"parameters_total": float(total), "parameters_active": float(total - unused)}


def mutual_information(use: Tensor, kind: Tensor) -> float:
    """Mutual information in nats of a row's kind and its expert: 0 when experts do not specialise.

    Args:
        use: [M, E] the weight of each expert for each row, rows summing to 1.
        kind: [M] int64, a class or a bin.
    """
    joint = F.one_hot(kind).to(torch.float64).t() @ use.double() / max(kind.numel(), 1)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return float(torch.where(joint > 0, joint * (joint / apart).log(), 0.0).sum().clamp_min(0))
