"""Optimiser steps and mini-batches, drawn from keyed randomness alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import unwrap
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness


class _Adam(torch.optim.Adam):
    """Adam itself, without the import of torch's compiler: seconds of every process that trains.

    torch wraps these three in functions that import `torch._dynamo` at their first call, to mark them for a compiler
    that training here does not use.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        unwrap(torch.optim.Adam.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        unwrap(torch.optim.Adam.zero_grad)(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return unwrap(torch.optim.Adam.step)(self, closure)


def adam(
    model: nn.Module, *, lr: float, weight_decay: float, decayed: list[nn.Parameter] | None = None
) -> torch.optim.Adam:
    """Adam with L2 decay on all parameters, or on `decayed` only (Kipf and Welling decay the first layer).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> optimiser = adam(model, lr=0.01, weight_decay=5e-4, decayed=list(model[0].parameters()))
        >>> [group["weight_decay"] for group in optimiser.param_groups]
        [0.0005, 0.0]
    """
    if decayed is None:
        return _Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    chosen = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return _Adam(groups, lr=lr, fused=True)


class HasRandomness(Protocol):
    """Whatever draws by the optimiser's step."""

    randomness: Randomness


def descend(model: HasRandomness, optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    """One optimiser step on ``loss()``; returns its value. Advances the model's randomness by one step."""
    model.randomness.step += 1
    optimiser.zero_grad(set_to_none=True)
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(value.detach())


def batches(model: Model, count: int, size: int | None, *, drop_last: bool = False) -> Iterator[Tensor]:
    """Positions 0..count-1 in random order, in batches of `size` ([size] int64 each; None: one batch, in order).

    Args:
        drop_last: leave out the remainder when there is at least one full batch, as GLNN's official code does.

    Example:
        >>> from gkdbench.testing import small_run
        >>> from gkdbench.training import backbone_config, build
        >>> view, ctx = small_run()
        >>> model = build(backbone_config("mlp", {}), view, seed=ctx.seed)
        >>> [len(batch) for batch in batches(model, 10, 4)]
        [4, 4, 2]
        >>> list(batches(model, 3, None))
        [tensor([0, 1, 2])]
    """
    if size is None:
        yield torch.arange(count)
        return
    generator = torch.Generator().manual_seed(model.randomness.key("batches"))
    order = torch.randperm(count, generator=generator)
    end = max(count - count % size, min(count, size)) if drop_last else count
    for start in range(0, end, size):
        yield order[start : start + size]


def endless_batches(model: Model, count: int, size: int | None) -> Iterator[Tensor]:
    """`batches` without end, each pass in a new order."""
    while True:
        yield from batches(model, count, size)


def mean_loss(losses: list[float]) -> float:
    """Mean of the epoch's step losses, 0 when there was no step."""
    return sum(losses) / len(losses) if losses else 0.0
