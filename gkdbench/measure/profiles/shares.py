"""From a trace to the time of each operator: every moment belongs to one of them, so that the shares add up to one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]

OUTSIDE = "outside operators (Python, waiting)"
AUTOGRAD = "autograd's graph"
WINDOW = "gkdbench::window"
"""Region that encloses all that is profiled; its duration is the whole."""


@dataclass(frozen=True, slots=True)
class Span:
    """One event of a trace with those inside it.

    Attributes:
        seconds: from its begin to its end on the CPU; on a GPU the time of the kernels that it started.
    """

    name: str
    seconds: float
    children: Sequence[Span] = ()


@dataclass(slots=True)
class OperatorTime:
    """Of all calls of one operator."""

    seconds: float = 0.0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class TimedWindow:
    """What was profiled: how long it took, and the events in it."""

    seconds: float
    spans: Sequence[Span] = field(default_factory=tuple)


def times(window: TimedWindow, whole: Collection[str]) -> dict[str, OperatorTime]:
    """Name -> time; `OUTSIDE` has what no event covers.

    Args:
        whole: names of operators that are not looked into: all the time of the outermost one is its own. Of any other
            event only the time that none of its children covers is its own.
    """
    found: defaultdict[str, OperatorTime] = defaultdict(OperatorTime)
    waiting = list(window.spans)
    while waiting:
        span = waiting.pop()
        closed = span.name in whole or span.name.startswith(("gkdkernels::", "gkdbench::"))
        own = span.seconds if closed else span.seconds - sum(child.seconds for child in span.children)
        entry = found[_shown(span.name)]
        entry.seconds += max(own, 0.0)
        entry.calls += 1
        if not closed:
            waiting += span.children
    covered = sum(entry.seconds for entry in found.values())
    found[OUTSIDE] = OperatorTime(max(window.seconds - covered, 0.0), 0)
    return dict(found)


def _shown(name: str) -> str:
    return AUTOGRAD if name.startswith(("autograd::", "torch::autograd::")) or "Backward" in name else name


def window_of(events: Sequence[Any], *, on_gpu: bool) -> TimedWindow:
    """The region `WINDOW` of the events of a `torch.profiler.profile`.

    Args:
        on_gpu: count the time of kernels: all threads take part, as backward runs in one of its own.
    """
    window = next(event for event in events if event.name == WINDOW and event.device_type == DeviceType.CPU)
    seconds = window.time_range.elapsed_us() * 1e-6
    if not on_gpu:
        return TimedWindow(seconds, [_span(child, on_gpu=False) for child in window.cpu_children])
    roots = [event for event in events if event.device_type == DeviceType.CPU and event.cpu_parent in (None, window)]
    return TimedWindow(seconds, [_span(event, on_gpu=True) for event in roots if event is not window])


def _span(event: Any, *, on_gpu: bool) -> Span:
    seconds = (event.device_time_total if on_gpu else event.time_range.elapsed_us()) * 1e-6
    return Span(event.name, seconds, [_span(child, on_gpu=on_gpu) for child in event.cpu_children])
