"""One estimate over several places: the run is the block, so that what places share by their splits stays in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gkdbench.report.statistics.family import Run


@dataclass(frozen=True, slots=True)
class Pooled:
    """Differences averaged over places, by run.

    Attributes:
        gains: of the runs that all places have. places: how many. least, most: runs of a place alone.
    """

    gains: Mapping[Run, float]
    places: int
    least: int
    most: int

    @property
    def said(self) -> str:
        """How many runs the places share, or that they share none."""
        where = f"{self.places} place{'' if self.places == 1 else 's'}"
        if self.places == 0:
            return "no place where both have a run"
        if not self.gains:
            return f"the {where} share no run"
        own = "" if self.least == self.most == len(self.gains) else f" (places have {self.least} to {self.most})"
        return f"{where}, {len(self.gains)} shared runs{own}"


def pooled(lines: Sequence[Mapping[Run, float]]) -> Pooled:
    """The differences of one rival, pooled over places, each given by its differences by run."""
    shared = set(lines[0]).intersection(*lines[1:]) if lines else set()
    gains = {run: fmean(line[run] for line in lines) for run in sorted(shared)}
    sizes = [len(line) for line in lines] or [0]
    return Pooled(gains, len(lines), min(sizes), max(sizes))
