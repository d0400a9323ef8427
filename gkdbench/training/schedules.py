"""Learning rates that change during training, as releases for graph tasks have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch.optim import Optimizer

from gkdbench.protocol.monitor import EpochResult

LRSchedule = Literal["constant", "halved", "plateau"]
"""``halved``: after every 50 epochs (Xu et al. 2019). ``plateau``: times 0.6 after 30 epochs in a row in which
validation did not improve (Yao et al. 2024); what it sees of validation is the Monitor's verdict."""

AfterEpoch = Callable[[int, EpochResult], None]
"""Called after every report with the epoch and the Monitor's answer."""

HALVED_EVERY = 50
PLATEAU_EPOCHS, PLATEAU_FACTOR = 30, 0.6


def schedule(kind: LRSchedule, optimiser: Optimizer) -> AfterEpoch | None:
    """What changes the learning rate of `optimiser`; None for a constant one."""
    makers: Mapping[LRSchedule, Callable[[Optimizer], AfterEpoch]] = {"halved": _halved, "plateau": _plateau}
    return makers[kind](optimiser) if kind in makers else None


def _scale(optimiser: Optimizer, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] *= factor


def _halved(optimiser: Optimizer) -> AfterEpoch:
    def after(epoch: int, verdict: EpochResult) -> None:
        if epoch % HALVED_EVERY == 0:
            _scale(optimiser, 0.5)

    return after


def _plateau(optimiser: Optimizer) -> AfterEpoch:
    waited = 0

    def after(epoch: int, verdict: EpochResult) -> None:
        nonlocal waited
        waited = 0 if any(verdict.improved.values()) else waited + 1
        if waited > PLATEAU_EPOCHS:
            _scale(optimiser, PLATEAU_FACTOR)
            waited = 0

    return after
