"""The bench of the kernels: its gate, what it refuses to print, and its tables of cases and bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from gkdkernels import CSRGraph
from gkdkernels.core.cost import Cost
from torch import Tensor

from gkdbench.errors import UserError
from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.memory import allocated
from gkdbench.measure.operators.bench import BenchSettings, CandidateResult, CaseResult, run_case, run_cases
from gkdbench.measure.operators.cases import all_cases, build, chosen, quick_cases
from gkdbench.measure.operators.gate import judge
from gkdbench.measure.operators.graphs import POWER_LAWS, graph_named, power_law
from gkdbench.measure.operators.problem import (
    Candidate,
    CandidateUnavailable,
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    edge_blocks,
)
from gkdbench.measure.operators.targets import FASTEST_COMPETITOR, PerfTarget, bars, candidates_of, hold
from gkdbench.measure.timers import CpuClock, TimeSample

CPU, ROOFS = torch.device("cpu"), MachinePeaks(1e10, 1e11)
SETTINGS = BenchSettings(rounds=1, budget_s=0.0, slow=False, memory=False)
BOTH = [case for case in quick_cases() if case.direction == "fwd+bwd" or case.operator == "rbm_layer"]


def no_data(name: str) -> CSRGraph:
    raise AssertionError(f"{name} is no drawn graph")


@pytest.mark.parametrize("case", BOTH, ids=lambda case: case.name)
def test_ours_and_the_plain_peers_agree_with_the_formula(case: Case) -> None:
    (result,) = run_cases([case], device=CPU, clock=CpuClock(), roofs=ROOFS, settings=SETTINGS, load=no_data)
    assert result.green
    wrong = {row.name: (row.status, row.reason) for row in result.rows if row.status in ("red", "failed")}
    assert wrong == {}
    assert all(row.reason for row in result.rows if row.status != "ok")
    assert result.fastest(ours=True) is not None
    assert result.fastest(ours=False) is not None
    told = result.as_json()["ratios"]
    assert told
    assert all(one["clock"] == "wall" and one["low"] <= one["value"] <= one["high"] for one in told)


def square(t: Tensors) -> Tensor:
    return t["x"] ** 2


def problem(*candidates: tuple[str, OperatorCall, bool]) -> OperatorProblem:
    """x^2 of three numbers."""

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        return {"value": inputs["x"] ** 2, "x": 2 * inputs["x"] * g}

    made = [Candidate(name, lambda f=forward: f, ours=mine) for name, forward, mine in candidates]  # type: ignore[misc]
    x = torch.tensor([1.0, 2.0, 3.0])
    return OperatorProblem({"x": x}, torch.tensor([1.0, -2.0, 0.5]), oracle, made, Cost(24, 3), Cost(24, 3))


def run(found: OperatorProblem, direction: str = "fwd+bwd") -> CaseResult:
    case = Case("square", {}, direction=direction)  # type: ignore[arg-type]
    return run_case(case, found, CPU, CpuClock(), ROOFS, SETTINGS)


def test_no_ratio_behind_a_red_gate() -> None:
    def wrong(t: Tensors) -> Tensor:
        return t["x"] ** 2 + 0.001

    result = run(problem(("a", square, True), ("b", wrong, True), ("peer", square, False)))
    assert not result.green
    assert [row.status for row in result.rows] == ["ok", "red", "ok"]
    assert result.ratio("a", "peer") is None
    assert result.as_json()["ratios"] == []


def test_a_wrong_gradient_is_red_and_no_matter_forward_only() -> None:
    def flat(t: Tensors) -> Tensor:
        return t["x"].detach() ** 2 + 0.0 * t["x"]

    found = problem(("a", flat, True), ("peer", square, False))
    result = run(found)
    assert result.rows[0].status == "red"
    assert "x is off by 1.0e+00" in result.rows[0].reason
    assert run(found, "fwd").green


def test_a_peer_that_is_wrong_or_absent_or_broken_is_told_and_not_compared() -> None:
    def missing() -> OperatorCall:
        raise CandidateUnavailable("no such package")

    def broken(t: Tensors) -> Tensor:
        raise RuntimeError("not implemented for 'Half'")

    found = problem(("a", square, True), ("wrong", lambda t: t["x"] ** 3, False), ("broken", broken, False))
    found.candidates.append(Candidate("absent", missing))
    result = run(found)
    assert result.green
    assert [row.status for row in result.rows] == ["ok", "red", "failed", "missing"]
    assert [result.rows[i].reason for i in (2, 3)] == ["RuntimeError: not implemented for 'Half'", "no such package"]
    assert [result.ratio("a", name) for name in ("wrong", "broken", "absent")] == [None] * 3
    assert result.fastest(ours=False) is None


def test_the_gate_sees_shapes_nan_and_dtypes() -> None:
    one = torch.ones(2, dtype=torch.float64)
    assert not judge({"value": torch.ones(3)}, {"value": one}, torch.float32).green
    assert not judge({"value": torch.tensor([1.0, torch.nan])}, {"value": one}, torch.float32).green
    near = {"value": one + 1e-3}
    assert not judge(near, {"value": one}, torch.float32).green
    assert judge(near, {"value": one}, torch.bfloat16).green


def test_cases_are_distinct_and_can_be_chosen() -> None:
    names = [case.name for case in all_cases(CPU)]
    assert len(set(names)) == len(names) > 100
    assert {case.operator for case in all_cases(CPU)} == {case.operator for case in quick_cases()}
    assert [case.operator for case in chosen(quick_cases(), "gat*/fwd")] == ["gat_aggregate"]
    with pytest.raises(UserError, match=r"no case matches 'gta'.*gat_aggregate"):
        chosen(quick_cases(), "gta")


def test_the_power_law_is_skewed_symmetric_and_repeatable() -> None:
    size = POWER_LAWS["power-law-small"]
    graph, again = power_law(size), power_law(size)
    assert torch.equal(graph.index, again.index)
    assert (graph.num_dst, graph.num_edges) == (size.nodes, size.edges)
    assert torch.equal(graph.transposed.graph.index, graph.index)
    assert bool((graph.row != graph.index).all())
    stats = graph.degree_stats()
    assert stats.max > 10 * stats.mean
    assert graph_named("edges=1000", no_data, CPU).num_edges == 1000


def test_blocks_cover_all_edges_once() -> None:
    graph = power_law(POWER_LAWS["power-law-tiny"])
    blocks = edge_blocks(graph, 100)
    assert [edges.start for _, edges in blocks[1:]] == [edges.stop for _, edges in blocks[:-1]]
    assert (blocks[0][1].start, blocks[-1][1].stop) == (0, graph.num_edges)
    assert blocks[-1][0].stop == graph.num_dst
    single = [rows.stop - rows.start == 1 for rows, edges in blocks if edges.stop - edges.start > 100]
    assert all(single)


def timed(name: str, seconds: float, *, ours: bool = False, yardstick: bool = False) -> CandidateResult:
    return CandidateResult(name, ours, yardstick, samples=[TimeSample(seconds)] * 5)


def results(case: Case) -> Iterator[CaseResult]:
    rows = [timed("gkdkernels cpu", 1.0, ours=True), timed("slow", 9.0), timed("fast", 4.0)]
    yield CaseResult(case, "warm", [*rows, timed("C++", 0.5, yardstick=True)], True, Cost(1, 1))


def test_bars_are_held_against_whom_they_name() -> None:
    case = Case("spmm", {"width": 1}, "g", "sum")
    (result,) = results(case)
    bar = PerfTarget("sum", case, "gkdkernels cpu", FASTEST_COMPETITOR, 0.25)
    held = hold(bar, {case.name: result})
    assert (held.against, held.verdict, held.ratio and held.ratio.value) == ("fast", "met", 0.25)
    assert hold(replace(bar, limit=0.2), {case.name: result}).verdict == "not met"
    assert hold(replace(bar, against="C++", limit=2.0), {case.name: result}).verdict == "met"
    absent = hold(replace(bar, ours="gkdkernels numba"), {case.name: result})
    assert (absent.verdict, absent.reason) == ("not measured", "gkdkernels numba has no such candidate")
    assert hold(bar, {}).reason == "the case was not run"


def test_the_bars_and_who_runs_for_them() -> None:
    lines = bars()
    assert [bar.limit for bar in lines] == [0.25, 2.3, 1.2, 1.5, *[1.0] * 4, 2.2, 1.2, 0.5, 0.75, 0.55]
    assert len(bars(quick=True)) == len(lines)
    assert candidates_of(lines, lines[0].case) == frozenset()
    assert candidates_of(lines, lines[1].case) == {"gkdkernels cpu", "gkdkernels numba", "C++"}
    for bar in bars(quick=True):
        graph = graph_named(bar.case.graph, no_data, CPU) if bar.case.graph else None
        names = {candidate.name for candidate in build(bar.case, graph, CPU).candidates}
        assert bar.against in names | {FASTEST_COMPETITOR}


def test_allocations_are_counted() -> None:
    found = allocated(lambda: [torch.empty(1000), torch.empty(500)], CPU)
    assert (found.peak_bytes, found.largest_bytes) == (6000, 4000)
