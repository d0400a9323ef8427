"""Times for tests of authors: a call in turns with a reference, its percentiles, its ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import cycle
from typing import Any

import torch

from gkdbench.data.nodes import NodeSet
from gkdbench.data.splits import SplitTask
from gkdbench.errors import UserError
from gkdbench.execute.provenance import cpu_name
from gkdbench.measure.cost.references import answers_reference
from gkdbench.measure.ratios import Ratio, missing_samples, percentile, percentile_text, ratio
from gkdbench.measure.timers import Clock, TimedCall, check_clock, clock_for, measure
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.predictor import Predictor

QUERIES = 64  # different ones, asked in turn, so that an answer that is kept is not what is timed
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """What was timed and what it was timed against, in turns.

    Attributes:
        samples_s, reference_s: seconds of every single call, equally many, in the order of the rounds.
        reference: what it was timed against, in words.
        ratio: time over that of the reference.
    """

    samples_s: tuple[float, ...]
    reference_s: tuple[float, ...]
    reference: str
    ratio: Ratio

    @property
    def p50(self) -> float | None:
        """Seconds that half of the calls stay below, or None; see `percentile`."""
        return self.percentile(0.5)

    @property
    def p90(self) -> float | None:
        """Seconds that nine of ten calls stay below, or None; see `percentile`."""
        return self.percentile(0.9)

    def percentile(self, q: float) -> float | None:
        """Upper bound of the q-quantile in seconds, by the rule of `gkdbench.measure.ratios.percentile`; None from too
        few samples, `missing` says how many more."""
        return percentile(self.samples_s, q)

    def missing(self, q: float) -> int:
        """How many samples more the q-quantile needs; 0 when there are enough."""
        return missing_samples(len(self.samples_s), q)

    def told(self, q: float) -> str:
        """The q-quantile in milliseconds, or "–, 359 more" from too few samples."""
        text = percentile_text(self.samples_s, q)
        return text if self.missing(q) else f"{text} ms"

    def __str__(self) -> str:
        return f"p50 {self.told(0.5)}, p90 {self.told(0.9)}, {self.ratio} of {self.reference}"

    def as_json(self) -> dict[str, Any]:
        """Percentiles, what they lack, and the ratio; no samples."""
        return percentiles_json(self.samples_s) | {"reference": self.reference, "ratio": asdict(self.ratio)}


def percentiles_json(samples_s: tuple[float, ...]) -> dict[str, Any]:
    """``{"p50_s": 0.01, "p99_s": None, ..., "more_samples": {"p99": 359}}``: seconds, and what the rest would need."""
    names = {f"p{round(q * 100)}": q for q in QUANTILES}
    lacking = {name: missing_samples(len(samples_s), q) for name, q in names.items()}
    return {f"{name}_s": percentile(samples_s, q) for name, q in names.items()} | {
        "more_samples": {name: count for name, count in lacking.items() if count}
    }


def time_in_turns(
    run: TimedCall,
    reference: TimedCall,
    *,
    words: str,
    device: torch.device,
    rounds: int,
    budget_s: float,
    single: bool = True,
) -> LatencyReport:
    """Time `run` and `reference` in turns on the checked clock of `device`.

    Args:
        words: of the reference, for reports and errors.
        rounds: samples of each.
        budget_s: no round begins later than this, once there are five.
        single: see `measure`.

    Raises:
        UserError: the reference fails, or `rounds` is below 1. RuntimeError: the clock does not pass its check.
    """
    if rounds < 1:
        raise UserError(f"rounds: expected 1 or more, got {rounds}; try 44, the least with a 90th percentile")
    try:
        reference()
    except Exception as error:
        raise UserError(
            f"the reference {words}: expected a call that returns, got {type(error).__name__}: {error}; "
            "try it alone first: without a reference there is no ratio"
        ) from error
    clock = checked_clock(str(device))
    found = measure({"run": run, "reference": reference}, clock, rounds=rounds, budget_s=budget_s, single=single)
    ours, theirs = (tuple(sample.wall_s for sample in found[name]) for name in ("run", "reference"))
    return LatencyReport(ours, theirs, words, ratio(ours, theirs))


@cache
def checked_clock(device: str) -> Clock:
    """The clock of `device`, after it measured a known duration; once a process."""
    clock = clock_for(torch.device(device))
    check_clock(clock, torch.device(device))
    return clock


def asking(predictor: Predictor, task: SplitTask, query_size: int | None = 1) -> TimedCall:
    """A call that answers the next query: `query_size` scored items of `task` (None: all of them at once).

    What the predictor prepares once, it has prepared before this returns.

    Raises:
        UserError: `query_size` is below 1.
    """
    if query_size is not None and query_size < 1:
        raise UserError(f"query_size: expected 1 or more items a query, or None for all, got {query_size}; try 1")
    graphs = make_evaluation_graphs(task)
    scored = next((one for one in graphs.scored_sets if one.column == "ind"), graphs.scored_sets[0])
    device = device_of(predictor)
    inputs = graphs.graphs[scored.graph_name].to(device)
    position = scored.items.position.to(device)
    size = len(position) if query_size is None else min(query_size, len(position))
    asked = [position[first : first + size] for first in range(0, len(position) - size + 1, size)][:QUERIES]
    calls: list[Callable[[], object]]
    if inputs.segments is None:
        calls = [partial(predictor.evaluate, inputs, NodeSet(inputs.items, one)) for one in asked]
        predictor.prepared(inputs)
    else:  # a query is a graph of its own, and arrives as one
        batches = [inputs.take(one) for one in asked]
        calls = [partial(predictor.evaluate, batch) for batch in batches]
        for batch in batches:
            predictor.prepared(batch)
    turn = cycle(calls)
    return lambda: next(turn)()


def standard_reference(task: SplitTask, device: torch.device) -> tuple[str, Predictor]:
    """What latencies are divided by, untrained: the same models as in suites that measure cost."""
    width, edges = int(task.task.features.shape[1]), task.task.edge_features
    edge_width = 0 if edges is None else int(edges.shape[1])
    return answers_reference(task.task.kind, width, task.task.num_classes, edge_width, device)


def device_of(predictor: Predictor) -> torch.device:
    """Where the predictor's parameters lie; the CPU without any."""
    return next((parameter.device for parameter in predictor.module.parameters()), torch.device("cpu"))


def fastest_device() -> torch.device:
    """A GPU where there is one: its clock waits for the device, and is right for work of the CPU too."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def device_words() -> str:
    """The machine as far as ratios depend on it: processor, GPU, threads, version of torch."""
    device = fastest_device()
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    threads = torch.get_num_threads()
    return f"{cpu_name()}{gpu}, {threads} thread{'s' * (threads != 1)}, torch {torch.__version__}"
