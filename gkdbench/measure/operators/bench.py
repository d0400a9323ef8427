"""Runs cases: gate first, then time, roofline and memory; there is a ratio only behind a green gate."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from gkdkernels.core.cost import Cost

from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.memory import allocated
from gkdbench.measure.operators.cases import build
from gkdbench.measure.operators.gate import GateResult, answer, judge, truth
from gkdbench.measure.operators.graphs import LoadGraph, graph_named
from gkdbench.measure.operators.problem import Candidate, CandidateUnavailable, Case, OperatorCall, OperatorProblem
from gkdbench.measure.ratios import Ratio, ratio
from gkdbench.measure.timers import Caches, Clock, TimeSample, measure

CandidateStatus = Literal["ok", "missing", "red", "failed", "left out"]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How much is measured.

    Attributes:
        rounds: samples of each candidate.
        budget_s: of one case, after which no further round begins (there are five at least).
        longest_s: a candidate whose one call takes longer is left out.
        slow: whether candidates that compile for long take part.
        memory: whether allocations are counted, one more call each.
        only: names of the candidates that take part; empty for all.
    """

    rounds: int = 15
    budget_s: float = 60.0
    longest_s: float = 15.0
    slow: bool = True
    memory: bool = True
    caches: Caches = "warm"
    only: frozenset[str] = frozenset()


@dataclass(slots=True)
class CandidateResult:
    """One candidate of one case.

    Attributes:
        reason: why there is no time; empty for "ok".
        errors: relative L2, of the value and of each gradient.
        percent_of_roof: of the measured roofs, every gathered row counted once per edge (above 100: caches helped).
        percent_of_floor: the same, each row counted once.
    """

    name: str
    ours: bool
    yardstick: bool
    status: CandidateStatus = "ok"
    reason: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    samples: list[TimeSample] = field(default_factory=list)
    percent_of_roof: float | None = None
    percent_of_floor: float | None = None
    peak_bytes: int | None = None
    largest_bytes: int | None = None

    def seconds(self, clock: str) -> list[float]:
        """Samples of the "wall" or the "device" clock; the latter empty on the CPU."""
        found = [sample.wall_s if clock == "wall" else sample.device_s for sample in self.samples]
        return [value for value in found if value is not None]


@dataclass(slots=True)
class CaseResult:
    """One case: its rows, whether ours may be compared, and what the operator must move and compute."""

    case: Case
    caches: Caches
    rows: list[CandidateResult]
    green: bool
    cost: Cost

    def row(self, name: str) -> CandidateResult | None:
        """The row of that name if it was timed."""
        return next((row for row in self.rows if row.name == name and row.status == "ok"), None)

    def ratio(self, mine: str, theirs: str, clock: str = "") -> Ratio | None:
        """Time of `mine` over time of `theirs`; None when the gate is red or one of them has no time.

        Args:
            clock: "wall" or "device"; the device's own where there is one.
        """
        a, b = self.row(mine), self.row(theirs)
        if not self.green or a is None or b is None:
            return None
        clock = clock or ("device" if a.seconds("device") else "wall")
        return ratio(a.seconds(clock), b.seconds(clock))

    def fastest(self, *, ours: bool) -> CandidateResult | None:
        """The fastest of our backends, or of the competitors that were not written for this bench."""
        rows = [row for row in self.rows if row.status == "ok" and row.ours == ours and not row.yardstick]
        return min(rows, key=_typical, default=None)

    def as_json(self) -> dict[str, Any]:
        """Everything, ratios of each of ours to each other candidate included."""
        best = self.fastest(ours=True)
        others = [row.name for row in self.rows if best is not None and row.name != best.name]
        ratios = []
        for clock in ("wall", "device"):
            for name in others:
                known = best is not None and bool(best.seconds(clock))
                if best is not None and known and (found := self.ratio(best.name, name, clock)) is not None:
                    ratios.append({"ours": best.name, "other": name, "clock": clock, **asdict(found)})
        return {
            "name": self.case.name,
            "case": asdict(self.case),
            "caches": self.caches,
            "green": self.green,
            "cost": asdict(self.cost),
            "rows": [asdict(row) for row in self.rows],
            "ratios": ratios,
        }


def _typical(row: CandidateResult) -> float:
    values = sorted(row.seconds("device") or row.seconds("wall"))
    return values[len(values) // 2]


def run_cases(
    cases: list[Case],
    *,
    device: torch.device,
    clock: Clock,
    roofs: MachinePeaks,
    settings: BenchSettings,
    load: LoadGraph,
) -> Iterator[CaseResult]:
    """Measure case by case; graphs are kept while the next case is on the same one."""
    name, graph = "", None
    for case in sorted(cases, key=lambda one: one.graph):
        if case.graph != name:
            graph = None
            gc.collect()
            name, graph = case.graph, graph_named(case.graph, load, device)
        yield run_case(case, build(case, graph, device), device, clock, roofs, settings)


def run_case(
    case: Case,
    problem: OperatorProblem,
    device: torch.device,
    clock: Clock,
    roofs: MachinePeaks,
    settings: BenchSettings,
) -> CaseResult:
    """Gate, time and weigh the candidates of one problem."""
    wanted = truth(problem)
    rows, runs = [], {}
    for candidate in problem.candidates:
        if settings.only and candidate.name not in settings.only:
            continue
        row = CandidateResult(candidate.name, candidate.ours, candidate.yardstick)
        rows.append(row)
        if candidate.slow and not settings.slow:
            row.status, row.reason = "left out", "takes long to compile or to run"
            continue
        forward = _admit(row, candidate, problem, case, wanted, settings)
        if forward is not None:
            runs[candidate.name] = timed(problem, forward, case)
    del wanted
    green = all(row.status != "red" for row in rows if row.ours) and any(
        row.ours and row.status == "ok" for row in rows
    )
    samples = measure(runs, clock, rounds=settings.rounds, budget_s=settings.budget_s, caches=settings.caches)
    for row in rows:
        if row.name in runs:
            row.samples = samples[row.name]
            typical = _typical(row)
            row.percent_of_roof = roofs.percent(problem.cost.bytes, problem.cost.flops, typical)
            row.percent_of_floor = roofs.percent(problem.floor.bytes, problem.floor.flops, typical)
            if settings.memory:
                used = allocated(runs[row.name], device)
                row.peak_bytes, row.largest_bytes = used.peak_bytes, used.largest_bytes
    return CaseResult(case, settings.caches, rows, green, problem.cost)


def timed(problem: OperatorProblem, forward: OperatorCall, case: Case) -> Callable[[], object]:
    """What is timed: a forward pass without gradients, or one with all gradients."""
    if case.direction == "fwd":

        def forth() -> object:
            with torch.no_grad():
                return forward(problem.inputs)

        return forth
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in problem.inputs.items()}
    wrt = list(leaves.values())

    def both() -> object:
        value = forward(leaves)
        return torch.autograd.grad(value, wrt, problem.upstream.to(value.dtype))

    return both


def _admit(
    row: CandidateResult,
    candidate: Candidate,
    problem: OperatorProblem,
    case: Case,
    wanted: dict[str, torch.Tensor],
    settings: BenchSettings,
) -> OperatorCall | None:
    """Build a candidate and compare it with the fp64 reference; None, with the reason in `row`, if it fails."""
    try:
        forward = candidate.make()
        verdict: GateResult = judge(answer(problem, forward, case.direction), wanted, case.torch_dtype)
        begin = time.monotonic()
        timed(problem, forward, case)()
        took = time.monotonic() - begin
    except CandidateUnavailable as missing:
        row.status, row.reason = "missing", str(missing)
        return None
    except ImportError as error:
        row.status, row.reason = "missing", f"cannot be imported: {error}"
        return None
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
        row.status, row.reason = "failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
        return None
    row.errors = verdict.errors
    if not verdict.green:
        row.status, row.reason = "red", str(verdict)
        return None
    if took > settings.longest_s:
        row.status, row.reason = "left out", f"one call takes more than {settings.longest_s:g} s"
        return None
    return forward
