"""Clocks and turns, against a clock whose every tick is known."""

from __future__ import annotations

import pytest
import torch

from gkdbench.measure.timers import CpuClock, TimedCall, TimeSample, check_clock, cpu_cache_bytes, measure


class Hand:
    """A clock that moves only when a run moves it."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def run(self, seconds: float) -> TimedCall:
        def move() -> None:
            self.ns += round(seconds * 1e9)

        return move


@pytest.mark.parametrize("caches", ["warm", "cold"])
def test_a_known_duration_is_read(caches: str) -> None:
    hand = Hand()
    clock = CpuClock(hand, cache_bytes=1 << 10)
    sample = clock.sample(hand.run(0.25), repeats=4, caches=caches)  # type: ignore[arg-type]
    assert sample == TimeSample(0.25)


def test_the_eviction_is_outside_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand()
    clock = CpuClock(hand, cache_bytes=1 << 10)
    evictions = []
    add = torch.Tensor.add_

    def slow(tensor: torch.Tensor, other: float) -> torch.Tensor:
        evictions.append(tensor.nbytes)
        hand.run(9.0)()
        return add(tensor, other)

    monkeypatch.setattr(torch.Tensor, "add_", slow)
    assert clock.sample(hand.run(0.5), repeats=1, caches="cold").wall_s == 0.5
    assert evictions == [2 << 10]  # larger than the cache
    clock.sample(hand.run(0.5), repeats=1, caches="warm")
    assert len(evictions) == 1


def test_candidates_take_turns_in_changing_order() -> None:
    hand, order = Hand(), []

    def named(name: str) -> TimedCall:
        def run() -> None:
            order.append(name)
            hand.run(1.0)()

        return run

    found = measure({name: named(name) for name in "abc"}, CpuClock(hand), rounds=8)
    assert {name: len(samples) for name, samples in found.items()} == dict.fromkeys("abc", 8)
    rounds = [tuple(order[6:][i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1


def test_short_runs_are_repeated_within_a_sample_only_with_warm_caches() -> None:
    hand, calls = Hand(), []

    def run() -> None:
        calls.append(1)
        hand.run(1e-4)()

    (warm,) = measure({"a": run}, CpuClock(hand), rounds=1)["a"]
    assert warm.wall_s == pytest.approx(1e-4)
    assert len(calls) == 2 + 10
    calls.clear()
    measure({"a": run}, CpuClock(hand, cache_bytes=1 << 10), rounds=1, caches="cold")
    assert len(calls) == 2 + 1


def test_the_budget_ends_the_rounds_but_not_before_the_least() -> None:
    hand = Hand()

    def rounds(budget_s: float) -> int:
        runs = {"a": hand.run(1.0)}
        found = measure(runs, CpuClock(hand), rounds=100, budget_s=budget_s, least_rounds=3, now=lambda: hand.ns * 1e-9)
        return len(found["a"])

    assert rounds(0.0) == 3
    assert rounds(12.0) == 11  # two calls before the first round


def test_a_clock_that_does_not_wait_is_found_out() -> None:
    class Hasty:
        def sample(self, run: TimedCall, *, repeats: int, caches: str) -> TimeSample:
            return TimeSample(1e-6)

    with pytest.raises(RuntimeError, match="on a known duration, got 100%"):
        check_clock(Hasty(), torch.device("cpu"))


def test_the_cache_has_a_size() -> None:
    assert cpu_cache_bytes() >= 1 << 18
