"""Adversarial augmentation of inputs by projected gradient ascent (Madry et al. 2018, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gkdkernels import Features, MixedFeatures
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.nn.model import Model
from gkdbench.nn.stats import update_stats

InputLoss = Callable[[Tensor], Tensor]
"""(dense inputs [M, D]) -> scalar loss to be raised."""


def densified(features: Features) -> Tensor:
    """`features` [M, D] as a dense tensor: an attack moves every entry, zeros too.

    On bag-of-words rows this gives up the sparse first layer: M * D floats of memory, and M * D * H multiply-adds
    a forward instead of nnz * H. So it is called on the rows of one mini-batch, never on the whole matrix.
    """
    if isinstance(features, Tensor):
        return features
    if isinstance(features, MixedFeatures):
        return torch.cat([features.sparse.dense(), features.dense], dim=1)
    return features.dense()


def perturbation(x: Features, loss: InputLoss, *, eps: float, steps: int, key: int) -> Tensor:
    """delta [M, D] with ``|delta| <= eps`` that raises ``loss(x + delta)``.

    Uniform start in the box, then `steps` times ``delta <- clip(delta + eps / 4 * sign(gradient), -eps, eps)``
    (NOSMOG's and RbM's releases). Parameters get no gradient.

    Args:
        x: [M, D] float, dense.
        key: of the start (`Randomness.key`).

    Raises:
        UserError: sparse features.
    """
    if not isinstance(x, Tensor):
        raise UserError(
            f"adversarial inputs: expected dense features, got {type(x).__name__}; the perturbation fills every zero: "
            f"make the mini-batch's rows dense first (gkdbench.training.blocks.adversarial.densified)"
        )
    generator = torch.Generator().manual_seed(key)
    start = torch.empty(x.shape, dtype=x.dtype).uniform_(-eps, eps, generator=generator)
    delta = start.to(x.device)
    for _ in range(steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x + delta), delta)
        delta = delta.detach().add_(gradient.sign_(), alpha=eps / 4).clamp_(-eps, eps)
    return delta


def adversarial_loss(
    model: Model, x: Features, loss: InputLoss, *, eps: float, steps: int, freeze_stats: bool = True
) -> Tensor:
    """``loss(x + delta)``, differentiable in the parameters, at the perturbation that raises it most.

    Dropout masks are keyed by layer and step, so all these forwards attack the one sub-network that the step trains.

    Args:
        model: whose running statistics are left alone, and whose randomness draws the start.
        x: [M, D] rows of one mini-batch; sparse ones are made dense.
        loss: of dense inputs [M, D].
        eps: largest change of an entry; 0 gives ``loss(x)``.
        freeze_stats: False lets these forwards change running statistics, as releases do.
    """
    rows = densified(x)
    with update_stats(model, not freeze_stats):
        delta = perturbation(rows, loss, eps=eps, steps=steps, key=model.randomness.key("attack"))
        return loss(rows + delta)
