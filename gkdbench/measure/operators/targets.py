"""What the operators promise on CPUs with two threads, as data; `gkdbench profile kernels --bars` checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gkdbench.measure.operators.bench import CaseResult
from gkdbench.measure.operators.problem import Case
from gkdbench.measure.ratios import Ratio

FASTEST_COMPETITOR = "the fastest peer"  # the name in stored results
_GRAPH = "power-law-arxiv"


@dataclass(frozen=True, slots=True)
class PerfTarget:
    """``ours / against <= limit``, forward and backward.

    Attributes:
        against: a candidate's name, or `FASTEST_COMPETITOR`: the fastest that was not made by us.
    """

    what: str
    case: Case
    ours: str
    against: str
    limit: float


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A bar and what was measured; `ratio` is None when something is missing or the gate is red, `reason` says what."""

    bar: PerfTarget
    ratio: Ratio | None
    against: str
    reason: str

    @property
    def verdict(self) -> str:
        """ "met", "not met", or "not measured"."""
        if self.ratio is None:
            return "not measured"
        return "met" if self.ratio.value <= self.bar.limit else "not met"


def bars(*, quick: bool = False) -> list[PerfTarget]:
    """The table of bars; `quick` has the same lines on tiny inputs, whose verdicts mean nothing."""
    graph = "power-law-tiny" if quick else _GRAPH
    nodes, rows = (300, 200) if quick else (169_343, 20_000)
    width = 16 if quick else 128
    cpu, numba, cpp = "gkdkernels cpu", "gkdkernels numba", "C++"

    def mutual(peers: int, classes: int) -> Case:
        return Case("mutual_kl", {"peers": peers, "nodes": nodes, "classes": classes})

    def experts(count: int, chosen: int) -> Case:
        return Case("experts", {"nodes": rows, "width": 16 if quick else 256, "experts": count, "chosen": chosen})

    total = Case("spmm", {"width": width}, graph, "sum")
    largest = Case("spmm", {"width": width}, graph, "max")
    gat = Case("gat_aggregate", {"heads": 4, "width": width // 4}, graph)
    cosine, laplace = (Case("structure_kl", {"width": width}, graph, kernel) for kernel in ("cosine", "laplace"))
    closed, released = "torch.compile(closed form)", "released structure, re-written plainly"
    return [
        PerfTarget("sum", total, cpu, FASTEST_COMPETITOR, 0.25),
        PerfTarget("GAT 4x32, torch alone", gat, cpu, cpp, 2.3),
        PerfTarget("GAT 4x32, numba", gat, numba, cpp, 1.2),
        PerfTarget("max, numba", largest, numba, cpp, 1.5),
        PerfTarget("mutual KL, K=4 C=40, torch alone", mutual(4, 40), cpu, closed, 1.0),
        PerfTarget("mutual KL, K=4 C=40, numba", mutual(4, 40), numba, closed, 1.0),
        PerfTarget("mutual KL, K=8 C=47, torch alone", mutual(8, 47), cpu, closed, 1.0),
        PerfTarget("mutual KL, K=8 C=47, numba", mutual(8, 47), numba, closed, 1.0),
        PerfTarget("structure KL, cosine, torch alone", cosine, cpu, cpp, 2.2),
        PerfTarget("structure KL, cosine, numba", cosine, numba, cpp, 1.2),
        PerfTarget("structure KL, laplace", laplace, cpu, "torch index_select + index_add", 0.5),
        PerfTarget("one-layer experts, E=8 k=3", experts(8, 3), cpu, released, 0.75),
        PerfTarget("one-layer experts, E=32 k=2", experts(32, 2), cpu, released, 0.55),
    ]


def candidates_of(lines: list[PerfTarget], case: Case) -> frozenset[str]:
    """Who has to run for the bars on `case`; empty for all."""
    names = {name for bar in lines if bar.case == case for name in (bar.ours, bar.against)}
    return frozenset() if FASTEST_COMPETITOR in names else frozenset(names)


def hold(bar: PerfTarget, results: Mapping[str, CaseResult]) -> TargetResult:
    """The measured result of a bar, from `results` by name of the case."""
    result = results.get(bar.case.name)
    if result is None:
        return TargetResult(bar, None, bar.against, "the case was not run")
    fastest = result.fastest(ours=False)
    against = bar.against if bar.against != FASTEST_COMPETITOR else fastest.name if fastest else FASTEST_COMPETITOR
    found = result.ratio(bar.ours, against)
    if found is not None:
        return TargetResult(bar, found, against, "")
    reasons = [f"{row.name}: {row.reason}" for row in result.rows if row.name in (bar.ours, against) and row.reason]
    red = ["the gate is red"] if any(row.ours and row.status == "red" for row in result.rows) else []
    return TargetResult(bar, None, against, "; ".join([*red, *reasons]) or f"{bar.ours} has no such candidate")
