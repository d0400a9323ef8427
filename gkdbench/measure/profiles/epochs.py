"""Watches the Monitor's reports, the ends of epochs: what is trained in between is profiled, or training ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from gkdbench.measure.profiles.recorder import Recorder
from gkdbench.measure.profiles.regions import Regions
from gkdbench.protocol.monitor import EpochResult, Monitor
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.method import Method

MONITOR = "gkdbench::monitor"
"""Validation and kept predictions, as an operator of a profile."""


class AllRecorded(BaseException):
    """Ends a `fit` of which everything is recorded; no method that catches exceptions catches it."""


class _Watch:
    """A Monitor whose reports are counted from the first selectable one: those of the stage that is deployed."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self.seen = monitor, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._monitor, name)

    def report(self, epoch: int, predictors: Mapping[str, Predictor], **more: Any) -> EpochResult:
        """As `Monitor.report`."""
        result = self._monitor.report(epoch, predictors, **more)
        self.seen += bool(more.get("selectable", True))
        return result

    def as_monitor(self) -> Monitor:
        """Itself; it answers to all that a Monitor does."""
        return cast(Monitor, self)


class _EndSoon(_Watch):
    def __init__(self, monitor: Monitor, epochs: int) -> None:
        super().__init__(monitor)
        self._epochs = epochs

    def report(self, epoch: int, predictors: Mapping[str, Predictor], **more: Any) -> EpochResult:
        result = super().report(epoch, predictors, **more)
        return replace(result, stop=True) if self.seen >= self._epochs else result


class _Recorded(_Watch):
    """Warm-up, the epochs that are timed, one that is counted, the end."""

    def __init__(self, monitor: Monitor, recorder: Recorder, regions: Regions, warm_up: int, epochs: int) -> None:
        super().__init__(monitor)
        self._recorder, self._regions = recorder, regions
        self._first, self._last = warm_up, warm_up + epochs

    def report(self, epoch: int, predictors: Mapping[str, Predictor], **more: Any) -> EpochResult:
        before = self.seen
        with self._regions.named(MONITOR):
            result = super().report(epoch, predictors, **more)
        if self.seen == before:
            return result
        if self.seen == self._first:
            self._recorder.begin_timing()
        elif self.seen == self._last:
            self._recorder.end_timing()
            self._recorder.begin_counting()
        elif self.seen == self._last + 1:
            self._recorder.end_counting()
            raise AllRecorded
        return result


class EndedSoon:
    """A method whose training is told to end after a few epochs; for `gkdbench.protocol.session.run_session`.

    Args:
        epochs: selectable ones; epochs before the deployed stage are not among them.
    """

    def __init__(self, method: Method, epochs: int) -> None:
        self._method, self._epochs = method, epochs

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        """As `Method.fit`."""
        return self._method.fit(view, replace(ctx, monitor=_EndSoon(ctx.monitor, self._epochs).as_monitor()))


def record_epochs(
    method: Method, view: TrainView, ctx: Context, recorder: Recorder, regions: Regions, *, warm_up: int, epochs: int
) -> int | None:
    """Train until `warm_up` epochs have passed unseen, `epochs` are timed and one more is counted.

    Returns:
        None; if training ended before, how many epochs it had.
    """
    watch = _Recorded(ctx.monitor, recorder, regions, warm_up, epochs)
    try:
        method.fit(view, replace(ctx, monitor=watch.as_monitor()))
    except AllRecorded:
        return None
    finally:
        recorder.abandon()
    return watch.seen
