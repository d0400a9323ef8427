"""Running statistics (BatchNorm's moments, a router's memory) change in clean training forwards and in no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class RunningStatistics(nn.Module):
    """Base of modules whose train-mode forward changes buffers: it may do so only while `updating` is True."""

    updating: bool = True


@contextmanager
def update_stats(module: nn.Module, updating: bool) -> Iterator[None]:
    """Within the block, train-mode forwards of `module` change running statistics only if `updating`.

    Attacks and forwards on adversarial inputs run under ``update_stats(model, False)`` (protocol trap 21). BatchNorm
    still normalises by the batch's own moments there. What was set before comes back at the end of the block.
    """
    batch_norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    others = [part for part in module.modules() if isinstance(part, RunningStatistics)]
    before = [part.track_running_stats for part in batch_norms], [part.updating for part in others]
    for norm in batch_norms:
        norm.track_running_stats = norm.track_running_stats and updating
    for other in others:
        other.updating = other.updating and updating
    try:
        yield
    finally:
        for norm, tracked in zip(batch_norms, before[0], strict=True):
            norm.track_running_stats = tracked
        for other, was in zip(others, before[1], strict=True):
            other.updating = was
