"""What an RbM costs at inference with more experts a row: its time against k, and the multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from gkdbench.measure.operators.bench import BenchSettings
from gkdbench.measure.operators.gate import relative_error
from gkdbench.measure.ratios import Ratio, ratio
from gkdbench.measure.timers import Clock, measure
from gkdbench.measure.training_steps.gnn_steps import StepData, dense_features
from gkdbench.measure.training_steps.official_code import PlainRbM
from gkdbench.measure.training_steps.pairwise import TOLERANCE
from gkdbench.measure.training_steps.whole_methods import BATCHES, quiet, started
from gkdbench.nn.rbm import FoldedRbM, RbMConfig


@dataclass(frozen=True, slots=True)
class Point:
    """One k of a curve.

    Attributes:
        macs: its multiply-adds over those of k = 1, router included.
        error: relative, of its logits to those of the re-implemented official code.
        ratio: its time over that of k = 1; None when one of the two disagrees with the re-implemented official code.
    """

    k: int
    macs: float
    error: float
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """Inference of `rows` dense rows by one network of which each row uses 1, 2, ... all experts."""

    data: str
    rows: int
    experts: int
    points: tuple[Point, ...]


def sizes(data: StepData) -> tuple[int, ...]:
    """Rows of the batches: one, 1,024 and all (fewer if there are fewer)."""
    everything = data.features.shape[0]
    return tuple(sorted({*(size for size in BATCHES if size < everything), everything}))


def latency_against_k(
    data: StepData, config: RbMConfig, wanted: tuple[int, ...], clock: Clock, settings: BenchSettings
) -> Iterator[LatencyCurve]:
    """The curves of batches of `wanted` rows; all k of one batch are timed in turns, folded, on the same weights."""
    dense, model = dense_features(data.features), started(config, data).eval()
    layers = model.folded().folded
    macs = [_macs(config, k, dense.size(1), data.classes) for k in range(1, config.experts + 1)]
    for size in wanted:
        rows = dense[:size].contiguous()
        runs, errors = {}, []
        for k in range(1, config.experts + 1):
            folded, plain = FoldedRbM(layers, k), PlainRbM(model).eval()
            for expert in plain.experts:
                expert.k = k
            with torch.no_grad():
                errors.append(relative_error(folded(rows), plain(rows)[0].double()))
            runs[str(k)] = quiet(partial(folded, rows))
        samples = measure(runs, clock, rounds=settings.rounds, budget_s=settings.budget_s)
        times = [[sample.wall_s for sample in samples[name]] for name in runs]
        points = [
            Point(
                k,
                macs[k - 1] / macs[0],
                errors[k - 1],
                ratio(times[k - 1], times[0]) if max(errors[0], errors[k - 1]) <= TOLERANCE else None,
            )
            for k in range(1, config.experts + 1)
        ]
        yield LatencyCurve(data.name, size, config.experts, tuple(points))


def _macs(config: RbMConfig, k: int, width: int, classes: int) -> int:
    """Multiply-adds of one dense row by k experts."""
    return replace(config, k=k).macs(width, classes, 1, 0, width)
