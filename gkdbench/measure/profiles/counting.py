"""Counts what every operator moves and computes while code runs, which slows it: nothing is timed meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gkdkernels.core.cost import Cost
from torch.utils._python_dispatch import TorchDispatchMode

from gkdbench.measure.profiles.aten_costs import aten_cost
from gkdbench.measure.profiles.kernel_costs import REGISTERED


@dataclass
class CountedCost:
    """Of all calls of one operator.

    Attributes:
        macs: multiply-adds.
    """

    calls: int = 0
    bytes: int = 0
    macs: int = 0


class OperatorCounter(TorchDispatchMode):
    """A context that counts; its `counted` has the costs by the operators' names.

    Example:
        >>> import torch
        >>> with OperatorCounter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
        >>> counter.counted["aten::mm"]
        CountedCost(calls=1, bytes=124, macs=30)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: defaultdict[str, CountedCost] = defaultdict(CountedCost)
        self._owner: str | None = None  # the outermost region that is open: what is within counts as its own
        self._known = False  # the open region's cost was given

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if not self._known and not name.startswith("profiler::"):
            of_call = REGISTERED.get(name)
            cost = of_call(*args, **(kwargs or {})) if of_call else aten_cost(func, args, kwargs or {}, out)
            self._add(name, cost)
        return out

    @contextmanager
    def region(self, name: str, cost: Callable[[], Cost] | None = None) -> Iterator[None]:
        """Everything within is one operator called `name`.

        Args:
            cost: of the operator; None: the sum over the operators within.
        """
        before = self._owner, self._known
        if not self._known:
            if self._owner is None:
                self._owner = name
                self.counted[name].calls += 1
            if cost is not None:
                self._add(name, cost())
                self._known = True
        try:
            yield
        finally:
            self._owner, self._known = before

    def _add(self, name: str, cost: Cost) -> None:
        found = self.counted[self._owner or name]
        found.calls += self._owner is None
        found.bytes += cost.bytes
        found.macs += cost.flops // 2
