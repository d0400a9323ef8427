"""The command line as a shell sees it: a process, its output, its exit code, its processor time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ONLY = "method=mlp,split=builtin-random"
"""The cells of the one small run that these tests share."""


@dataclass(frozen=True)
class Done:
    """What a command left: `cpu_s` is user and system time of the process and its children."""

    code: int
    out: str
    err: str
    cpu_s: float


def gkdbench(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """Run ``gkdbench WORDS``; GKDBENCH_DATA is unset unless `env` sets it."""
    environment = {name: value for name, value in os.environ.items() if name != "GKDBENCH_DATA"} | dict(env or {})
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "gkdbench.cli", *words], capture_output=True, text=True, cwd=cwd, env=environment
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Done(done.returncode, done.stdout, done.stderr, spent)
