"""How much of the gradient a transfer term is: a term that is there and moves nothing is found out (protocol trap
23)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gkdbench.protocol.view import Context

LIMIT = 0.01
SPAN = 20
EVERY = 5
FLAG = "vacuous transfer"


class GradientShare:
    """``|g_transfer| / (|g_task| + |g_transfer|)`` over the parameters of one model, measured every EVERY epochs.

    The norms are of the weighted terms' gradients, each taken alone, so that terms that oppose each other are seen.

    Args:
        parameters: of the deployed model; those of projections do not count.

    Attributes:
        value: the last one measured, 0 before.
        vacuous: whether it was below LIMIT over SPAN epochs on end.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._low_since: int | None = None
        self._measured = 0
        self._all: list[float] = []
        self.value = 0.0
        self.vacuous = False

    def look(self, epoch: int, task: Tensor, transfer: Tensor) -> None:
        """Measure when it is due, once an epoch; both graphs are kept for the backward pass that follows.

        Args:
            epoch: from 1.
            task, transfer: scalars, as weighted in the loss.
        """
        if epoch % EVERY != 1 or epoch == self._measured:
            return
        self._measured = epoch
        parts = [self._norm(term) for term in (task, transfer)]
        self.value = parts[1] / sum(parts) if sum(parts) else 0.0
        self._all.append(self.value)
        if self.value >= LIMIT:
            self._low_since = None
            return
        self._low_since = epoch if self._low_since is None else self._low_since
        self.vacuous = self.vacuous or epoch - self._low_since >= SPAN

    def _norm(self, term: Tensor) -> float:
        if not term.requires_grad:
            return 0.0
        found = torch.autograd.grad(term, self._parameters, retain_graph=True, allow_unused=True)
        return math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))

    @property
    def mean(self) -> float:
        """Mean of all measurements, 0 when there was none."""
        return sum(self._all) / len(self._all) if self._all else 0.0


def log_gradient_shares(ctx: Context, shares: Iterable[GradientShare]) -> None:
    """The mean share over models into ``ctx.extra``; a flag when that of any model was vacuous."""
    known = list(shares)
    if not known:
        return
    ctx.extra["gradient_share"] = sum(share.mean for share in known) / len(known)
    if any(share.vacuous for share in known) and FLAG not in ctx.flags:
        ctx.flags.append(FLAG)
