"""The deployed predictor as a server calls it: what is prepared once, all items, batches of 1,024, one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from gkdbench.measure.cost.inference import BATCH, Deployed, query_of
from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.profiles.profile import Profile
from gkdbench.measure.profiles.recorder import Recorder
from gkdbench.measure.profiles.regions import Regions, kernels_by_name
from gkdbench.protocol.inputs import Inputs

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


def ways(model: Deployed, inputs: Inputs) -> Iterator[Answering]:
    """Preparation (where there is any), then all items, batches and single queries.

    Args:
        inputs: [N] items of a node task, or [G] graphs.
    """
    number = len(inputs.items)
    if any(predictor.prepare for predictor in model.predictors):

        def prepare() -> None:
            model.forget(inputs)
            model.prepare(inputs)

        whole = f"what is prepared once for all {number} items"
        yield Answering("prepare", whole, [prepare])
    everything = torch.arange(number, device=inputs.graph.device)
    queries = everything[torch.linspace(0, number - 1, min(QUERIES, number)).long()]
    yield Answering("all", f"all {number} items in one call", [partial(model.answer, inputs)] * PASSES)
    if number > BATCH:
        calls = [query_of(model, inputs, batch) for batch in torch.split(everything, BATCH)]
        yield Answering("batches", f"batches of {BATCH:,} items", calls)
    yield Answering("one", "one query", [query_of(model, inputs, query[None]) for query in queries])


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
