"""The roofs of this machine, measured: bytes and multiply-adds a second with the available threads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gkdbench.measure.timers import Clock, TimeSample, measure


@dataclass(frozen=True, slots=True)
class MachinePeaks:
    """What the machine reaches on work that is nothing but moving, nothing but computing.

    Attributes:
        bytes_per_s: of the triad ``a = b + s c`` (McCalpin's STREAM: two reads and one write, no more counted) on the
            CPU, of a copy on a GPU; arrays far larger than the caches.
        flops_per_s: of a square fp32 matrix product (TF32 as torch is set).
    """

    bytes_per_s: float
    flops_per_s: float

    def percent(self, moved: int, flops: int, seconds: float) -> float:
        """How much of the roofline's speed was reached: 100 means that the floor was the time."""
        return 100.0 * max(moved / self.bytes_per_s, flops / self.flops_per_s) / seconds


def measure_roofs(clock: Clock, device: torch.device, *, quick: bool = False) -> MachinePeaks:
    """The best of several trials of both.

    Args:
        quick: small arrays and one trial: for tests of the machinery, no number to print.
    """
    count = 1 << (20 if quick else 26 if device.type == "cpu" else 28)
    side = 256 if quick else 2048 if device.type == "cpu" else 8192
    a, b, c = (torch.full((count,), float(i), device=device) for i in range(3))
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    moves = 3 if device.type == "cpu" else 2
    runs = {
        "move": (lambda: torch.add(b, c, alpha=2.0, out=a)) if moves == 3 else (lambda: a.copy_(b)),
        "compute": lambda: left @ right,
    }
    samples = measure(runs, clock, rounds=1 if quick else 10)
    best = {name: min(map(_seconds, found)) for name, found in samples.items()}
    return MachinePeaks(moves * 4 * count / best["move"], 2 * side**3 / best["compute"])


def _seconds(sample: TimeSample) -> float:
    return sample.wall_s if sample.device_s is None else sample.device_s
