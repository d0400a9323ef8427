"""What a call allocates: the highest sum of live tensors, and the largest one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Allocated:
    """Bytes beyond what was alive before the call.

    Attributes:
        peak_bytes: the highest sum.
        largest_bytes: the largest single allocation.
    """

    peak_bytes: int
    largest_bytes: int


def allocated(run: Callable[[], object], device: torch.device) -> Allocated:
    """What torch's allocator of `device` hands out during one call, threads of autograd included."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities, profile_memory=True) as profiler:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    kineto = profiler.profiler.kineto_results
    here = torch.device(device).type == "cuda"
    events = [e for e in kineto.events() if e.name() == "[memory]" and (e.device_type().name == "CUDA") == here]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return Allocated(peak, max((event.nbytes() for event in events), default=0))
