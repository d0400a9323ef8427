"""Answers of a trained model, in turns with the reference: all items in one call, 1,024, and one item at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.measure.cost.answer_checks import check_answers, with_other_features
from gkdbench.measure.memory import allocated
from gkdbench.measure.ratios import missing_samples, percentile, ratio
from gkdbench.measure.timers import Clock, TimedCall, measure
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.neighbourhood import neighbourhood
from gkdbench.protocol.predictor import Predictor, mean_logits

BATCH = 1024
QUERIES = 130
"""Queries of one item: enough for an upper bound of p90 (44 samples with none above it, 64 with one)."""
NEAR = 1e-4
"""Largest difference, over the largest logit, of an answer from the neighbourhood to that from the whole graph."""
_SHOWN = 5  # items on which both are compared
By = Literal["features", "whole graph", "neighbourhood"]


@dataclass(frozen=True, slots=True)
class InferenceBudget:
    """How long to measure.

    Args:
        rounds: calls for all items, and of 1,024.
        seconds: of each of the three sizes.
    """

    rounds: int = 15
    seconds: float = 1.2
    queries: int = QUERIES


@dataclass(frozen=True)
class Deployed:
    """What answers in production: one model, or the mean probability of several.

    Args:
        predictors: of one run, in evaluation mode.
    """

    predictors: Sequence[Predictor]
    multi_label: bool = False

    @torch.no_grad()
    def answer(self, inputs: Inputs, items: NodeSet | None = None) -> Tensor:
        """Logits [M, C] of `items` (default: all)."""
        if len(self.predictors) == 1:
            return self.predictors[0].evaluate(inputs, items)
        logits = [predictor.evaluate(inputs, items) for predictor in self.predictors]
        chances = [one.sigmoid() if self.multi_label else one.softmax(dim=1) for one in logits]
        return mean_logits(torch.stack(chances).mean(0), multi_label=self.multi_label)

    @property
    def reads_graph(self) -> bool:
        """Whether an answer needs the graph."""
        return any(predictor.needs == "graph" for predictor in self.predictors)

    @property
    def hops(self) -> int:
        """The largest distance that an answer reads."""
        return max((predictor.hops or 0 for predictor in self.predictors), default=0)

    def prepare(self, inputs: Inputs) -> int:
        """Make what is read beside the raw inputs; its size in bytes."""
        ready = [one.prepared(inputs) for one in self.predictors if one.prepare is not None]
        return sum(features_bytes(made) for made in ready)

    def forget(self, inputs: Inputs) -> None:
        """Drop what was prepared for `inputs`."""
        for predictor in self.predictors:
            predictor.forget(inputs)


def features_bytes(inputs: Inputs) -> int:
    """Bytes of a feature matrix: values and, of a sparse one, their columns."""
    parts = [inputs.features, getattr(inputs.features, "sparse", None)]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    for part in parts:
        graph = getattr(part, "graph", None)
        tensors += [t for name in ("value", "dense") if isinstance(t := getattr(part, name, None), Tensor)]
        tensors += [] if graph is None else [graph.indptr, graph.index]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_inference(
    model: Deployed, reference: Predictor, inputs: Inputs, clock: Clock, budget: InferenceBudget
) -> dict[str, Any]:
    """Everything that `gkdbench.records.measurement.InferenceCost` holds.

    Raises:
        Cheat: the answers do not come from the inputs of the call.
    """
    other = Deployed([reference])
    device = inputs.graph.device
    model.forget(inputs)
    made: list[int] = []
    prepare_s = clock.sample(lambda: made.append(model.prepare(inputs)), repeats=1, caches="warm").wall_s
    first_call_s = clock.sample(lambda: model.answer(inputs), repeats=1, caches="warm").wall_s
    prepared = any(predictor.prepare is not None for predictor in model.predictors)
    check_answers(model.answer, inputs, with_other_features(inputs), prepared=prepared)
    found: dict[str, Any] = {"prepare_s": prepare_s, "prepared_bytes": made[0], "first_call_s": first_call_s}
    found["peak_bytes"] = allocated(lambda: model.answer(inputs), device).peak_bytes
    count = len(inputs.items)
    all_ours, all_theirs = partial(model.answer, inputs), partial(other.answer, inputs)
    found["everything"] = _batch(all_ours, all_theirs, clock, budget, count) | {"by": _by(model)}
    order = torch.from_numpy(np.random.default_rng(0).permutation(count)).to(device)
    if count > BATCH:
        ours, theirs = (query_of(one, inputs, order[:BATCH]) for one in (model, other))
        found["batch"] = _batch(ours, theirs, clock, budget, BATCH) | {"by": _by(model)}
    how, asked = _query(model, inputs, order, clock)
    found["query"] = _queries(asked, _each(other, inputs, order), clock, budget) | {"by": how}
    return found


def timed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The fields of `gkdbench.records.measurement.TimedRatio`; sample i of both was taken in one round."""
    found = ratio(ours, theirs)
    low, high = min(ours), max(ours)
    edges = np.geomspace(max(low, 1e-9), max(high, low * 1.01, 1e-9), 11)
    counts, _ = np.histogram(np.clip(ours, edges[0], edges[-1]), edges)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "ours_s": statistics.median(ours),
        "reference_s": statistics.median(theirs),
        "histogram": ([float(f"{edge:.4g}") for edge in edges], counts.tolist()),
    }


def _by(model: Deployed) -> By:
    return "whole graph" if model.reads_graph else "features"


def _batch(ours: TimedCall, theirs: TimedCall, clock: Clock, budget: InferenceBudget, items: int) -> dict[str, Any]:
    runs = {"ours": ours, "theirs": theirs}
    samples = measure(runs, clock, rounds=budget.rounds, budget_s=budget.seconds)
    a, b = ([sample.wall_s for sample in samples[name]] for name in ("ours", "theirs"))
    return {"items": items, "call": timed_ratio(a, b)}


def query_of(model: Deployed, inputs: Inputs, positions: Tensor) -> TimedCall:
    """A call that answers the items at `positions`: graphs are put together within it."""
    if inputs.segments is not None:

        def graphs() -> Tensor:
            batch = inputs.take(positions)
            answer = model.answer(batch)
            model.forget(batch)
            return answer

        return graphs
    return partial(model.answer, inputs, NodeSet(inputs.items, positions))


def _each(model: Deployed, inputs: Inputs, order: Tensor) -> Iterator[TimedCall]:
    """One call an item, in turn, without end."""
    return cycle([query_of(model, inputs, order[i : i + 1]) for i in range(min(QUERIES, len(order)))])


def _query(model: Deployed, inputs: Inputs, order: Tensor, clock: Clock) -> tuple[By, Iterator[TimedCall]]:
    """How one item is answered, and the calls: from the neighbourhood where that is the same answer, and faster."""
    whole = _each(model, inputs, order)
    if not model.reads_graph or inputs.segments is not None:
        return _by(model), whole
    around = [_around(model, inputs, int(place)) for place in order[:QUERIES].tolist()]
    for place, call in list(zip(order.tolist(), around, strict=False))[:_SHOWN]:
        right = model.answer(inputs, NodeSet(inputs.items, torch.tensor([place], device=order.device)))
        got = call()
        if float((got - right).abs().max()) > NEAR * max(1.0, float(right.abs().max())):
            return "whole graph", whole
    once = [clock.sample(call, repeats=1, caches="warm").wall_s for call in around[:_SHOWN]]
    one_whole = clock.sample(next(whole), repeats=1, caches="warm").wall_s
    if statistics.median(once) < one_whole:
        return "neighbourhood", cycle(around)
    return "whole graph", whole


def _around(model: Deployed, inputs: Inputs, place: int) -> Callable[[], Tensor]:
    def answer() -> Tensor:
        part, number = neighbourhood(inputs, place, model.hops)
        logits = model.answer(part)[number : number + 1]
        model.forget(part)
        return logits

    return answer


def _queries(
    ours: Iterator[TimedCall], theirs: Iterator[TimedCall], clock: Clock, budget: InferenceBudget
) -> dict[str, Any]:
    """One call a sample: percentiles are of single queries."""
    next(ours)(), next(theirs)()
    a: list[float] = []
    b: list[float] = []
    while len(a) < budget.queries and (sum(a) + sum(b) < budget.seconds or len(a) < 5):
        a.append(clock.sample(next(ours), repeats=1, caches="warm").wall_s)
        b.append(clock.sample(next(theirs), repeats=1, caches="warm").wall_s)
    return {
        "items": 1,
        "call": timed_ratio(a, b),
        "p50_s": percentile(a, 0.5),
        "p90_s": percentile(a, 0.9),
        "p90_missing": missing_samples(len(a), 0.9),
    }
