"""How time and memory grow with the number of edges: powers fitted over three decades."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gkdkernels import CSRGraph

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.operators.bench import BenchSettings, run_cases
from gkdbench.measure.operators.problem import Case
from gkdbench.measure.timers import Clock

EDGES = (2_400, 24_000, 240_000, 2_400_000)
LARGEST_EXPONENT = 1.1
WIDTH = 128


@dataclass(frozen=True, slots=True)
class Growth:
    """One operator over graphs of one mean degree.

    Attributes:
        time_exponent, memory_exponent: slopes of logarithms, the fit of least squares.
        largest_share: the largest single allocation over edges x width values, in the largest graph: 1 would be a
            tensor of edges x features.
    """

    operator: str
    backend: str
    edges: tuple[int, ...]
    seconds: tuple[float, ...]
    peak_bytes: tuple[int, ...]
    time_exponent: float
    memory_exponent: float
    largest_share: float

    @property
    def held(self) -> bool:
        """No faster growth than almost linear, and no tensor of edges x features."""
        return max(self.time_exponent, self.memory_exponent) <= LARGEST_EXPONENT and self.largest_share < 1.0


def grow(
    device: torch.device, clock: Clock, roofs: MachinePeaks, settings: BenchSettings, edges: Sequence[int] = EDGES
) -> Iterator[Growth]:
    """Measure every operator on graphs of growing size, forward and backward, our backends only."""
    backend = "gkdkernels triton" if device.type == "cuda" else "gkdkernels cpu"
    sizes = {"width": WIDTH}
    table = [("spmm", name, sizes) for name in ("sum", "mean", "max")]
    table += [("gat_aggregate", "", {"heads": 4, "width": WIDTH // 4})]
    table += [("structure_kl", name, sizes) for name in ("cosine", "laplace")]
    only = BenchSettings(settings.rounds, settings.budget_s, settings.longest_s, slow=False, only=frozenset({backend}))
    for operator, option, shape in table:
        cases = [Case(operator, shape, f"edges={count}", option) for count in edges]
        seconds, peaks, largest = [], [], 0
        for case in cases:
            (result,) = run_cases([case], device=device, clock=clock, roofs=roofs, settings=only, load=_no_data)
            row = result.row(backend)
            if row is None:
                break
            seconds.append(float(np.median(row.seconds("device") or row.seconds("wall"))))
            peaks.append(row.peak_bytes or 0)
            largest = row.largest_bytes or 0
        if len(seconds) < len(edges):
            continue
        yield Growth(
            cases[0].name.split("/")[0],
            backend,
            tuple(edges),
            tuple(seconds),
            tuple(peaks),
            slope(edges, seconds),
            slope(edges, peaks),
            largest / (edges[-1] * WIDTH * 4),
        )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The power of x that y grows with."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _no_data(name: str) -> CSRGraph:
    raise KeyError(name)
