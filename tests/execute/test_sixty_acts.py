"""Sixty misbehaving methods in one suite with GLNN, GCN and RbM: those three are as in a run of their own."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
from support.same_records import contents, leftovers
from support.toy_plugin import DATASET

from gkdbench.execute.api import run_suite
from gkdbench.execute.suite import Suite, parse_suite
from gkdbench.records.store import Store

LIMIT_S = 3.0
FEW = 10
HONEST: list[dict[str, Any]] = [
    {"method": "glnn", "teacher": "gcn", "epochs": 5},
    {"method": "teacher", "backbone": "gcn", "epochs": 5},
    {"method": "rbm", "epochs": 4, "pretrain": 1},
]


def acts() -> list[str]:
    """Names of all acts, those of both modules."""
    found: set[str] = set()
    for module in ("careless_acts", "more_acts"):
        functions = vars(importlib.import_module(module))
        found |= {name.removeprefix("do_").replace("_", "-") for name in functions if name.startswith("do_")}
    return sorted(found)


def suite_of(names: list[str]) -> Suite:
    """The acts, with the honest methods before, between and after them."""
    toys = [{"method": "toy", "mode": name} for name in names]
    third = len(toys) // 2
    methods = [HONEST[0], *toys[:third], HONEST[1], *toys[third:], HONEST[2]]
    grid = {"datasets": [DATASET], "splits": ["builtin-random"], "methods": methods}
    head = {"name": "acts", "seeds": "0:1", "time_limit_s": LIMIT_S, "memory_limit_bytes": 2**30}
    return parse_suite({"suite": head, "grid": [grid]})


def of_honest(out: Path) -> dict[str, object]:
    """Stable content of the records and side-cars of the honest methods."""
    stems = {record.key[:12] for _, record in Store(out).records() if record.method != "toy"}
    return {name: found for name, found in contents(out).items() if any(stem in name for stem in stems)}


def of_children() -> set[int]:
    """Living processes whose parent is this one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] not in "ZX":
            found.add(int(path.parent.name))
    return found


@pytest.fixture
def honest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], int]:
    """The honest methods alone, and how many cells they are with their teachers."""
    monkeypatch.delenv("GKDBENCH_WORKER_COLD", raising=False)  # they use optimisers
    monkeypatch.setenv("TOY_CHILDREN", str(tmp_path))
    monkeypatch.setattr("gkdbench.execute.runner.ATTEMPTS", 1)
    summary = run_suite(suite_of([]), out=tmp_path / "alone", jobs=1, device="cpu")
    assert summary.ok == summary.ran >= len(HONEST)
    return of_honest(tmp_path / "alone"), summary.ran


@pytest.mark.parametrize(
    ("jobs", "count"),
    [(1, FEW), pytest.param(1, 60, marks=pytest.mark.full), pytest.param(2, 60, marks=pytest.mark.full)],
)
def test_the_others_are_as_alone(honest: tuple[dict[str, object], int], tmp_path: Path, jobs: int, count: int) -> None:
    every = acts()
    assert len(every) >= 60
    names = every if count == 60 else every[:: len(every) // FEW][:FEW]
    before, out = of_children(), tmp_path / "disturbed"
    summary = run_suite(suite_of(names), out=out, jobs=jobs, device="cpu", grace_s=1.0)
    alone, cells = honest
    assert of_honest(out) == alone
    assert summary.ran == len(names) + cells
    assert of_children() == before
    assert leftovers(out) == []
