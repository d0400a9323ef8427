"""Seconds of cells from the seconds of measured ones: a ridge regression of logarithms.

``log s = numbers + method + data set``: the numbers of `gkdbench.execute.planning.facts`, and one effect for each
method and data set that was measured, both drawn towards 0, so that a method that is new has the numbers alone. With
fewer than `ALL_RUN` epochs, which no published row has, seconds are proportional to epochs. Measured seconds are the
lower quartile of a record's rows: a row's time is often several times another's of the same group, because of what else
ran on the machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkdbench.execute.planning.facts import NUMBERS, facts_of
from gkdbench.records.schema import Record

TIMINGS = Path(__file__).with_name("timings.json")
"""What published records say; made by ``python suites/studies/plan_accuracy.py --write``."""
QUARTILE = 0.25
ALL_RUN = 100
"""Fewer epochs are all run; of more, patience leaves some out."""
LOOSE = {"numbers": 3.0, "method": 0.3, "dataset": 1.0}
"""How strongly each is drawn towards 0."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured group.

    Args:
        key: of the group. seconds, epochs: of one cell. numbers: see `facts_of`.
    """

    key: str
    method: str
    dataset: str
    seconds: float
    epochs: float
    numbers: tuple[float, ...]

    @property
    def pair(self) -> tuple[str, str]:
        return self.method, self.dataset


def timing_of(record: Record) -> Timing | None:
    """The lower quartile of the training seconds of a record's rows, and their mean epochs; None without any."""
    rows = [row for row in record.rows if row.status == "ok" and row.train_s]
    if not rows:
        return None
    numbers = tuple(round(number, 4) for number in facts_of(record.config, record.data, record.split))
    seconds = np.quantile([row.train_s or 0.0 for row in rows], QUARTILE)
    epochs = max(1.0, float(np.mean([row.epochs for row in rows])))
    return Timing(record.key, record.method, record.dataset, float(f"{seconds:.4g}"), round(epochs, 1), numbers)


@cache
def published_timings() -> tuple[Timing, ...]:
    """The committed timings."""
    document = json.loads(TIMINGS.read_text(encoding="utf-8"))
    assert tuple(document["numbers"]) == NUMBERS
    return tuple(Timing(**fields | {"numbers": tuple(fields["numbers"])}) for fields in document["timings"])


def write_timings(timings: Iterable[Timing]) -> None:
    """Replace the committed timings."""
    rows = ",\n".join(json.dumps(asdict(one)) for one in sorted(timings, key=lambda one: one.key))
    TIMINGS.write_text(f'{{"numbers": {json.dumps(NUMBERS)},\n"timings": [\n{rows}\n]}}\n', encoding="utf-8")


SECONDS, EPOCHS = attrgetter("seconds"), attrgetter("epochs")


class TimeModel:
    """The regression on some timings.

    Args:
        of: what is estimated: `SECONDS`, or the `EPOCHS` that are trained.
    """

    def __init__(self, timings: Sequence[Timing], of: Callable[[Timing], float] = SECONDS) -> None:
        self._methods = sorted({one.method for one in timings})
        self._datasets = sorted({one.dataset for one in timings})
        numbers = np.array([one.numbers for one in timings], dtype=np.float64).reshape(-1, len(NUMBERS))
        self._mean = numbers.mean(0) if len(timings) else np.zeros(len(NUMBERS))
        self._scale = numbers.std(0) + 1e-9 if len(timings) else np.ones(len(NUMBERS))
        logs = np.log([of(one) / _share_of_epochs(one.numbers) for one in timings])
        # a pair with many records counts as one with few: a study of one method must not rule
        pairs = [one.pair for one in timings]
        weight = np.array([pairs.count(pair) ** -0.5 for pair in pairs])
        self._level = float(np.average(logs, weights=weight**2)) if len(timings) else 0.0
        rows = np.array([self._columns(one.method, one.dataset, one.numbers) for one in timings])
        rows = rows.reshape(len(timings), self._width) * weight[:, None]
        target = (logs - self._level) * weight
        self._slopes = np.linalg.solve(rows.T @ rows + np.eye(self._width), rows.T @ target)

    @property
    def _width(self) -> int:
        return len(NUMBERS) + len(self._methods) + len(self._datasets)

    def _columns(self, method: str, dataset: str, numbers: Sequence[float]) -> NDArray[np.float64]:
        scaled = ((np.asarray(numbers) - self._mean) / self._scale).clip(-4, 4) * LOOSE["numbers"] ** -0.5
        of_method = np.array([method == known for known in self._methods]) * LOOSE["method"] ** -0.5
        of_dataset = np.array([dataset == known for known in self._datasets]) * LOOSE["dataset"] ** -0.5
        return np.concatenate([scaled, of_method, of_dataset])

    def seconds(self, method: str, dataset: str, numbers: Sequence[float]) -> float:
        """The estimate of one cell, in the unit of what is estimated."""
        full = float(np.exp(self._level + self._columns(method, dataset, numbers) @ self._slopes))
        return full * _share_of_epochs(numbers)

    def knows(self, method: str) -> bool:
        """Whether the method was measured on any data set."""
        return method in self._methods


def _share_of_epochs(numbers: Sequence[float]) -> float:
    """Epochs over `ALL_RUN`, at most 1."""
    return min(1.0, math.exp(numbers[NUMBERS.index("epochs")]) / ALL_RUN)


def left_out(timings: Sequence[Timing]) -> dict[tuple[str, str], float]:
    """(method, data set) -> estimated over measured seconds of all its groups together, none of which the estimate has
    seen."""
    found = {}
    for pair in sorted({one.pair for one in timings}):
        model = TimeModel([one for one in timings if one.pair != pair])
        own = [one for one in timings if one.pair == pair]
        estimated = sum(model.seconds(one.method, one.dataset, one.numbers) for one in own)
        found[pair] = estimated / sum(one.seconds for one in own)
    return found


def error_factors(ratios: Iterable[float]) -> tuple[float, float]:
    """(median, 90%) of how many times too long or too short estimates are."""
    factors = np.exp(np.abs(np.log(list(ratios))))
    return float(np.median(factors)), float(np.quantile(factors, 0.9))
