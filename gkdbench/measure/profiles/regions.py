"""Names for code that torch's profiler does not see as one operator: functions of gkdkernels, the Monitor's work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

from gkdkernels.core.cost import Cost
from torch.profiler import record_function

from gkdbench.measure.profiles.counting import OperatorCounter
from gkdbench.measure.profiles.kernel_costs import FUNCTIONS


class Regions:
    """Opens named regions, in the trace and in the counter that is running, if any."""

    def __init__(self) -> None:
        self.counter: OperatorCounter | None = None

    @contextmanager
    def named(self, name: str, cost: Callable[[], Cost] | None = None) -> Iterator[None]:
        """A region called `name`; see `OperatorCounter.region`."""
        with ExitStack() as stack:
            stack.enter_context(record_function(name))
            if self.counter is not None:
                stack.enter_context(self.counter.region(name, cost))
            yield


@contextmanager
def kernels_by_name(regions: Regions) -> Iterator[None]:
    """Within, every function of `gkdbench.measure.profiles.kernel_costs.FUNCTIONS` is a region of its own.

    The functions are replaced in all modules that hold them, and put back afterwards.
    """
    swapped = []
    try:
        for (module, attribute), (name, cost) in FUNCTIONS.items():
            original = getattr(import_module(module), attribute)
            wrapped = _wrapped(regions, original, name, cost)
            swapped.append((attribute, original, wrapped))
            _swap(attribute, original, wrapped)
        yield
    finally:
        for attribute, original, wrapped in swapped:
            _swap(attribute, wrapped, original)


def _wrapped(
    regions: Regions, function: Callable[..., Any], name: str, cost: Callable[..., Cost] | None
) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with regions.named(name, None if cost is None else lambda: cost(*args, **kwargs)):
            return function(*args, **kwargs)

    return call


def _swap(attribute: str, old: Any, new: Any) -> None:
    for module in list(sys.modules.values()):
        held = getattr(module, "__dict__", {})
        if held.get(attribute) is old:
            held[attribute] = new
