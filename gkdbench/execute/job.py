"""What the run tells the process of a cell: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TeacherJob:
    """A teacher's bank entry, as a cell reads it."""

    folder: str
    method: str
    config: dict[str, Any]
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """One cell, as its process is told of it. Nothing of it tells a test label, and no path leads out of the cell's own
    folder (`gkdbench.execute.processes.cell_folder`).

    Args:
        bundle: folder of the view.
        scratch: empty folder for what the cell writes; its working directory.
        later: folder of what may be read only after ``fit``, or None.
        bank: folder to be made for the cell's model, where others need it.
        measure: settings of `gkdbench.measure.cost.session.MeasureSettings`: the cell's cost is measured, and nothing
            is scored; None: it is trained and scored.
    """

    id: int
    method: str
    config: dict[str, Any]
    bundle: str
    scratch: str
    seed: int
    device: str
    audit_every: int
    teachers: dict[str, TeacherJob] = field(default_factory=dict)
    bank: str | None = None
    sweeps: dict[str, list[float]] = field(default_factory=dict)
    selection: str = "loss"
    time_limit_s: float | None = None
    memory_limit_bytes: int | None = None
    keep_weights: bool = False
    later: str | None = None
    measure: dict[str, Any] | None = None

    def line(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes | str) -> Job:
        """The inverse of `line`."""
        data = json.loads(line)
        data["teachers"] = {role: TeacherJob(**entry) for role, entry in data["teachers"].items()}
        return cls(**data)
