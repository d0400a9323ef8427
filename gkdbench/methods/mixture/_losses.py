"""Losses of a mixture's routing."""

from __future__ import annotations

import torch
from gkdkernels.experts.routing import routing_matrix
from torch import Tensor

from gkdbench.nn.mixture import Routing


def commitment(routing: Routing) -> Tensor:
    """``mean_i sum_{e in T(i)} alpha_ie * (- cos(x_i, M_e))``: rows move towards the memories that they chose."""
    return -(routing.alpha * routing.score).sum(1).mean()


def spread(directions: Tensor) -> Tensor:
    """``mean_{e, e'} <M_e, sg[M_e']>`` of unit rows ``directions: [E, D]``, the diagonal included."""
    return (directions @ directions.detach().t()).mean()


@torch.no_grad()
def repelled_memory(memory: Tensor, weight: float) -> Tensor:
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
