"""update_stats: running statistics change in clean training forwards only (docs/protocol.md, trap 21)."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gkdbench.nn.stats import RunningStatistics, update_stats


class Memory(RunningStatistics):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.updating:
            self.seen += 1
        return x


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Memory())


def buffers(module: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in module.buffers()]


def changed_by(module: nn.Module, act: Callable[[], object]) -> bool:
    before = buffers(module)
    act()
    return any(not torch.equal(a, b) for a, b in zip(before, buffers(module), strict=True))


def test_statistics_are_left_alone_within_the_block_only(module: nn.Module) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert changed_by(module, lambda: module(x))
    with update_stats(module, False):
        assert not changed_by(module, lambda: module(x))
        with update_stats(module, True):
            assert not changed_by(module, lambda: module(x)), "an inner block does not undo an outer one"
        assert not changed_by(module, lambda: module(x))
    assert changed_by(module, lambda: module(x))


def test_the_batchs_own_moments_still_normalise(module: nn.Module) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    wanted = module(x)
    with update_stats(module, False):
        assert torch.equal(module(x), wanted)


def test_what_was_set_comes_back_after_an_error(module: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="halt"), update_stats(module, False):
        raise RuntimeError("halt")
    assert module[1].track_running_stats  # type: ignore[index]
    assert module[2].updating  # type: ignore[index]


def test_a_norm_without_running_statistics_stays_so() -> None:
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    with update_stats(norm, True):
        norm(torch.randn(8, 4))
    assert not norm.track_running_stats
