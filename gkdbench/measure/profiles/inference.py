"""The deployed predictor as a server calls it: what is prepared once, all items, batches of 1,024, one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.profiles.profile import Profile
from gkdbench.measure.profiles.recorder import Recorder
from gkdbench.measure.profiles.regions import Regions, kernels_by_name
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor

BATCH = 1024
QUERIES = 50
PASSES = 3
"""So many times all items are answered."""


@dataclass(frozen=True, slots=True)
class Answering:
    """One way to call a predictor.

    Attributes:
        name: for file names; what: a phrase.
        calls: what is profiled, one call each.
    """

    name: str
    what: str
    calls: Sequence[Callable[[], object]]


def ways(predictors: Sequence[Predictor], inputs: Inputs) -> Iterator[Answering]:
    """Preparation (where there is any), then all items, batches and single queries.

    Args:
        predictors: all answer each call: one, or the members of an ensemble.
        inputs: [N] items of a node task, or [G] graphs.
    """
    number = len(inputs.items)
    if any(predictor.prepare for predictor in predictors):
        whole = f"what is prepared once for all {number} items"
        yield Answering("prepare", whole, [lambda: [_prepared(one, inputs) for one in predictors]])
    everything = torch.arange(number, device=inputs.graph.device)
    queries = everything[torch.linspace(0, number - 1, min(QUERIES, number)).long()]
    yield Answering("all", f"all {number} items in one call", [_call(predictors, inputs, None)] * PASSES)
    if number > BATCH:
        calls = [_call(predictors, inputs, batch) for batch in torch.split(everything, BATCH)]
        yield Answering("batches", f"batches of {BATCH:,} items", calls)
    yield Answering("one", "one query", [_call(predictors, inputs, query[None]) for query in queries])


def profiled(way: Answering, peaks: MachinePeaks, device: torch.device) -> tuple[Profile, Recorder]:
    """The profile of all calls of `way`, after one unseen call, and the recorder that has the trace."""
    regions = Regions()
    recorder = Recorder(device, regions)
    with kernels_by_name(regions):
        way.calls[0]()
        try:
            recorder.begin_timing()
            for call in way.calls:
                call()
            recorder.end_timing()
            recorder.begin_counting()
            for call in way.calls:
                call()
            recorder.end_counting()
        finally:
            recorder.abandon()
    number = len(way.calls)
    return recorder.profile(way.what, peaks, unit="call", units=number, counted_units=number), recorder


def _prepared(predictor: Predictor, inputs: Inputs) -> object:
    ready = inputs.without_edges() if predictor.needs == "features" else inputs
    return predictor.prepare(ready) if predictor.prepare else None


def _call(predictors: Sequence[Predictor], inputs: Inputs, positions: Tensor | None) -> Callable[[], object]:
    """One call; batches of graphs are cut out beforehand."""
    if positions is None:
        return lambda: [one.evaluate(inputs) for one in predictors]
    if inputs.segments is not None:
        taken = inputs.take(positions)
        return lambda: [one.evaluate(taken) for one in predictors]
    items = inputs.everything.take(positions)
    return lambda: [one.evaluate(inputs, items) for one in predictors]
