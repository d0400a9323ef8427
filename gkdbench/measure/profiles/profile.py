"""A profile: the operators of a piece of work by their share of its time, held against the machine's peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.profiles.counting import CountedCost
from gkdbench.measure.profiles.shares import OperatorTime


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One operator; all numbers but the share are those of one unit (an epoch, a call).

    Attributes:
        share: of the profiled time, in [0, 1]; the shares of a profile add up to 1.
        calls: mean number.
        bytes: to and from the memory, each operand once; None where nothing is counted.
        macs: multiply-adds; None where none are counted.
        percent_of_roof: how much of the speed was reached that the machine's peaks allow for these bytes and
            multiply-adds; above 100 the operands came from the caches.
        bound: ``"bytes"`` or ``"multiply-adds"``, whichever takes longer at the machine's peaks; ``""``.
    """

    name: str
    share: float
    seconds: float
    calls: float
    bytes: float | None = None
    macs: float | None = None
    percent_of_roof: float | None = None
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """The operators of one piece of work, the one with the largest share first.

    Attributes:
        what: a phrase.
        unit: what one number is of, ``"epoch"`` or ``"call"``.
        units: how many were profiled.
        seconds: of one unit, under the profiler.
    """

    what: str
    unit: str
    units: int
    seconds: float
    rows: tuple[ProfileRow, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def percent_of_roof(self) -> float:
        """Of all that is counted: how much of the time the machine's peaks would need for it."""
        return sum((row.percent_of_roof or 0.0) * row.share for row in self.rows)


def joined(
    what: str,
    times: Mapping[str, OperatorTime],
    counted: Mapping[str, CountedCost],
    peaks: MachinePeaks,
    *,
    unit: str,
    units: int,
    counted_units: int = 1,
) -> Profile:
    """Times and costs of the same work, joined by the operators' names.

    Args:
        units: how many of the work were timed; `counted_units`: how many were counted.
    """
    whole = sum(entry.seconds for entry in times.values())
    rows = []
    for name, entry in times.items():
        share = entry.seconds / whole if whole else 0.0
        seconds, cost = entry.seconds / units, counted.get(name)
        row = ProfileRow(name, share, seconds, entry.calls / units)
        if cost is not None and cost.bytes and seconds:
            moved, macs = cost.bytes / counted_units, cost.macs / counted_units
            moving, computing = moved / peaks.bytes_per_s, 2 * macs / peaks.flops_per_s
            row = ProfileRow(
                name, share, seconds, entry.calls / units, moved, macs or None,
                100.0 * max(moving, computing) / seconds, "bytes" if moving >= computing else "multiply-adds",
            )  # fmt: skip
        rows.append(row)
    rows.sort(key=lambda row: (-row.share, row.name))
    return Profile(what, unit, units, whole / units, tuple(rows))
