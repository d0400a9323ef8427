"""What the run tells its worker and the process of a cell: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    folder (`gkdbench.execute.cell_folder`).

    Args:
        bundle: folder of the view.
        scratch: empty folder for what the cell writes; its working directory.
        later: folder of what may be read only after ``fit``, or None.
        bank: folder to be made for the cell's model, where others need it.
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
    time_limit_s: float | None = None
    memory_limit_bytes: int | None = None
    keep_weights: bool = False
    later: str | None = None

    def line(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes | str) -> Job:
        """The inverse of `line`."""
        data = json.loads(line)
        data["teachers"] = {role: TeacherJob(**entry) for role, entry in data["teachers"].items()}
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker tells the process of a cell.

    Args:
        job: the cell.
        answer: file descriptor of the file for the answer.
        token: random word that the answer must hold; no method is handed it.
        parent: process id of the worker.
        threads: of torch, for one cell.
        hidden: folders that the cell must not see; None where the kernel cannot hide any.
    """

    job: Job
    answer: int
    token: str
    parent: int
    threads: int
    hidden: Sequence[str] | None = None

    def line(self) -> bytes:
        """As one line of JSON."""
        facts = {name: getattr(self, name) for name in ("answer", "token", "parent", "threads", "hidden")}
        return json.dumps(facts | {"job": self.job.line().decode()}).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Orders:
        """The inverse of `line`."""
        facts = json.loads(line)
        return cls(**facts | {"job": Job.parse(facts["job"])})
