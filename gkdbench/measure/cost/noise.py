"""How busy the machine was with other work during a measurement, from Linux's counters where there are any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

OTHERS_LIMIT = 0.15
"""Processor time of other processes, in cores, above which times are called noisy."""
STEAL_LIMIT = 0.02
"""Share of the time that a hypervisor took away, above which times are called noisy."""
_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Seconds since the system started.

    Attributes:
        busy: of all cores, all processes.
        stolen: taken by the hypervisor.
        own: of this process and its threads.
        wall: of the clock.
    """

    busy: float
    stolen: float
    own: float
    wall: float

    @classmethod
    def now(cls, stat: Path = _STAT) -> ProcessorTimes | None:
        """The counters now; None where the system has none."""
        try:
            first = stat.read_text().split("\n", 1)[0].split()[1:]
            user, nice, system, idle, iowait, irq, softirq, steal = (
                int(word) / os.sysconf("SC_CLK_TCK") for word in first[:8]
            )
        except (OSError, ValueError):
            return None
        del idle, iowait
        times = os.times()
        own = times.user + times.system
        return cls(user + nice + system + irq + softirq, steal, own, times.elapsed)


def noise_flags(before: ProcessorTimes | None, after: ProcessorTimes | None) -> list[str]:
    """Flags for a record, ``"noisy: ..."``; empty when the machine was quiet or does not tell."""
    if before is None or after is None or after.wall <= before.wall:
        return []
    wall = after.wall - before.wall
    others = max(0.0, after.busy - before.busy - (after.own - before.own)) / wall
    stolen = (after.stolen - before.stolen) / wall
    flags = []
    if others > OTHERS_LIMIT:
        flags.append(f"noisy: other processes used {others:.2f} cores")
    if stolen > STEAL_LIMIT:
        flags.append(f"noisy: the hypervisor took {stolen:.0%} of the time")
    return flags
