"""Losses of a mixture's routing, and what a row says of it."""

from __future__ import annotations

import torch
from gkdkernels import Features
from gkdkernels.route import routing_matrix
from torch import Tensor

from gkdbench.nn.mixture import Mixture, MixtureModel, Routing
from gkdbench.nn.model import parameter_count
from gkdbench.protocol.view import Context


def commitment(routing: Routing) -> Tensor:
    """``mean_i sum_{e in T(i)} alpha_ie * (- cos(x_i, M_e))``: rows move towards the memories that they chose."""
    return -(routing.alpha * routing.score).sum(1).mean()


def spread(directions: Tensor) -> Tensor:
    """``mean_{e, e'} <M_e, sg[M_e']>`` of unit rows ``directions: [E, D]``, the diagonal included."""
    return (directions @ directions.detach().t()).mean()


@torch.no_grad()
def pushed_apart(memory: Tensor, weight: float) -> Tensor:
    """``M_e - weight * mean_{e'} (Mh_e' - <Mh_e, Mh_e'> Mh_e) / |M_e|`` of ``memory: [E, D]``, Mh its unit rows.

    A step of gradient descent on each memory's ``weight * mean_{e'} <Mh_e, sg[Mh_e']>``.
    """
    norm = memory.norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = memory / norm
    mean = unit.mean(0)
    gradient: Tensor = (mean - (unit @ mean)[:, None] * unit) / norm
    return memory - weight * gradient


def variation(mass: Tensor) -> Tensor:
    """``Var_unbiased(mass) / (mean(mass)^2 + 1e-10)`` of ``mass: [E]``, the squared coefficient of variation."""
    if mass.numel() == 1:
        return mass.new_zeros(())
    return mass.var() / (mass.mean().square() + 1e-10)


def weight_per_expert(routing: Routing, experts: int) -> Tensor:
    """[E] sums of alpha over rows, differentiable."""
    return routing_matrix(routing.index, routing.alpha, experts).sum(0)


def load(routing: Routing, experts: int) -> Tensor:
    """[E] how many rows use each expert."""
    return torch.bincount(routing.index.reshape(-1), minlength=experts).to(routing.alpha.dtype)


@torch.no_grad()
def diagnose(ctx: Context, config: Mixture, model: MixtureModel, features: Features) -> None:
    """Put the routing of all observed rows by the last weights into ``ctx.extra``.

    Per layer the share of (row, expert) pairs of each expert and the mean entropy of a row's weights in nats; for the
    model its parameters and those that a row uses. An expert that no row uses is flagged "idle_expert".
    """
    training = model.training
    routings = model.eval().node_trace(features, None).routings
    model.train(training)
    for depth, routing in enumerate(routings):
        share = load(routing, config.experts) / routing.index.numel()
        ctx.extra |= {f"load_{depth}_{expert}": value for expert, value in enumerate(share.tolist())}
        weight = routing.alpha / routing.alpha.sum(1, keepdim=True)
        ctx.extra[f"routing_entropy_{depth}"] = float(-torch.xlogy(weight, weight).sum(1).mean())
        if not bool(share.all()) and "idle_expert" not in ctx.flags:
            ctx.flags.append("idle_expert")
    used = routings[0].index.size(1) if routings else 1
    total = parameter_count(model) + sum(memory.numel() for memory in model.router_tensors())
    of_experts = sum(
        p.numel() for layer in model.expert_layers for p in (layer.weight, layer.bias, layer.gate) if p is not None
    )
    ctx.extra["parameters_total"] = float(total)
    ctx.extra["parameters_active"] = float(total - of_experts * (config.experts - used) // config.experts)
