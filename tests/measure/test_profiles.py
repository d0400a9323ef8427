"""Profiles: hand-counted costs, shares that add up to one, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph, expert_linear, spmm
from gkdkernels.core.cost import expert_linear_cost, spmm_cost

from gkdbench.execute.profiling import planned_cell, profile_inference, profile_training, short_runs
from gkdbench.measure.machine_peaks import MachinePeaks
from gkdbench.measure.profiles.counting import CountedCost, OperatorCounter
from gkdbench.measure.profiles.page import page
from gkdbench.measure.profiles.profile import joined
from gkdbench.measure.profiles.recorder import Recorder
from gkdbench.measure.profiles.regions import Regions, kernels_by_name
from gkdbench.measure.profiles.shares import AUTOGRAD, OUTSIDE, OperatorTime, Span, TimedWindow, times

PEAKS = MachinePeaks(bytes_per_s=1e9, flops_per_s=1e10)
DATA = "csbm:n=210,classes=3,d=16,degree=6"


def counted(work: Callable[[], object]) -> dict[str, CountedCost]:
    regions = Regions()
    with kernels_by_name(regions), OperatorCounter() as counter:
        regions.counter = counter
        work()
    return dict(counter.counted)


def test_products_have_the_multiply_adds_of_their_shapes() -> None:
    x, layer = torch.randn(7, 5), torch.nn.Linear(5, 3)
    found = counted(lambda: layer(x).sum().backward())
    assert found["aten::addmm"] == CountedCost(calls=1, bytes=4 * (3 + 7 * 5 + 5 * 3 + 7 * 3), macs=7 * 5 * 3)
    assert found["aten::mm"].macs == 3 * 7 * 5  # the gradient of the weight; x asks for none
    found = counted(lambda: torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 6)) @ torch.ones(6))
    assert found["aten::bmm"].macs == 2 * 3 * 4 * 6
    assert found["aten::mv"].macs == 2 * 3 * 6


def test_views_move_nothing_and_gathers_move_the_rows_that_they_take() -> None:
    x, which = torch.ones(100, 4), torch.tensor([3, 5])
    found = counted(lambda: x.t()[:, :50].index_select(1, which))
    assert found["aten::t"].bytes == found["aten::slice"].bytes == 0
    assert found["aten::index_select"].bytes == 2 * 4 * 2 * 4 + 2 * 8


def test_kernels_have_their_own_names_and_costs() -> None:
    graph = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]), 3)
    x = torch.ones(3, 5, requires_grad=True)
    found = counted(lambda: spmm(graph, x).sum().backward())
    cost = [spmm_cost(3, 3, 4, 5, weighted=False, backward=back, reuse=True) for back in (False, False)]
    index_bytes = 4 * (graph.index.element_size() - 4) * 2 + 2 * 4 * (graph.index.element_size() - 4)
    assert found["gkdkernels::spmm_sum"].calls == 2  # forward and backward
    assert found["gkdkernels::spmm_sum"].macs == 2 * 4 * 5
    assert found["gkdkernels::spmm_sum"].bytes == sum(one.bytes for one in cost) + index_bytes

    weight, index, alpha = torch.ones(4, 5, 2), torch.tensor([[0, 1], [2, 3], [1, 2]]), torch.ones(3, 2)
    found = counted(lambda: expert_linear(x.detach(), weight, None, index, alpha))
    assert found["gkdkernels::expert_linear"].macs == expert_linear_cost(3, 5, 2, 4, 2).flops // 2 == 3 * 2 * 5 * 2


def test_functions_are_put_back() -> None:
    module = import_module("gkdkernels.spmm.op")  # the name leads to the operator
    before = module.sum_rows
    with pytest.raises(ZeroDivisionError), kernels_by_name(Regions()):
        assert module.sum_rows is not before
        raise ZeroDivisionError
    assert module.sum_rows is before


def test_every_moment_of_a_trace_belongs_to_one_operator() -> None:
    inner = Span("aten::copy_", 1.0)
    spans = [
        Span("aten::clone", 3.0, [inner]),  # counted: its copy is its own
        Span("aten::linear", 4.0, [Span("aten::addmm", 3.0, [inner])]),
        Span(
            "autograd::engine::evaluate_function: MmBackward0", 2.0, [Span("MmBackward0", 1.5, [Span("aten::mm", 1.0)])]
        ),
        Span("gkdkernels::spmm_sum", 5.0, [Span("aten::embedding_bag", 5.0)]),
    ]
    found = times(TimedWindow(16.0, spans), {"aten::clone", "aten::addmm", "aten::mm"})
    assert {name: (entry.seconds, entry.calls) for name, entry in found.items()} == {
        "aten::clone": (3.0, 1),
        "aten::linear": (1.0, 1),
        "aten::addmm": (3.0, 1),
        AUTOGRAD: (1.0, 2),
        "aten::mm": (1.0, 1),
        "gkdkernels::spmm_sum": (5.0, 1),
        OUTSIDE: (2.0, 0),
    }


def test_costs_are_held_against_the_peaks_per_unit() -> None:
    found = joined(
        "work",
        {"aten::mm": OperatorTime(2.0, 8), "aten::add": OperatorTime(2.0, 4), OUTSIDE: OperatorTime(4.0)},
        {"aten::mm": CountedCost(2, 10, 10**9), "aten::add": CountedCost(1, 10**8, 0)},
        PEAKS,
        unit="epoch",
        units=4,
    )
    outside, add, mm = found.rows
    assert (outside.share, outside.bytes, outside.bound) == (0.5, None, "")
    assert (mm.seconds, mm.calls, mm.macs, mm.bound) == (0.5, 2.0, 10**9, "multiply-adds")
    assert mm.percent_of_roof == pytest.approx(100 * (2e9 / 1e10) / 0.5)
    assert (add.macs, add.bound, add.percent_of_roof) == (None, "bytes", pytest.approx(100 * 0.1 / 0.5))
    assert found.percent_of_roof == pytest.approx(0.25 * 40 + 0.25 * 20)
    text = page("Work", {"method": "none"}, [(found, "work.trace.json")])
    assert "| `aten::mm` | 25.0% | 2 | 10 | 1 G | 40% | multiply-adds |" in text


def test_what_is_recorded_is_the_work_in_between(tmp_path: Path) -> None:
    regions = Regions()
    recorder, x = Recorder(torch.device("cpu"), regions), torch.ones(8, 8)
    recorder.begin_timing()
    x @ x
    recorder.end_timing()
    recorder.begin_counting()
    x @ x
    recorder.end_counting()
    torch.exp(x)
    found = recorder.profile("a product", PEAKS, unit="call", units=1)
    rows = {row.name: row for row in found.rows}
    assert rows["aten::mm"].macs == 8**3
    assert "aten::exp" not in rows
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """Profiles of RbM, with its teacher, on a small graph."""
    cell = planned_cell("rbm", {"pretrain": 1, "encodings": False}, dataset=DATA)
    with short_runs(cell, data=None, device="cpu", threads=1) as runs:
        training = profile_training(cell, runs, PEAKS, epochs=1)
    with short_runs(cell, data=None, device="cpu", threads=1) as runs:
        inference = list(profile_inference(cell, runs, PEAKS, epochs=1))
    return {name: profile for name, profile, _ in [*training, *inference]}


def test_a_method_is_profiled_in_its_deployed_stage(trained: dict[str, Any]) -> None:
    names = {row.name: row for row in trained["training"].rows}
    assert {"gkdkernels::expert_linear_backward", "gkdkernels::route_by_memory", "gkdbench::monitor"} <= set(names)
    assert names["gkdbench::monitor"].calls == 1
    assert (trained["training"].unit, trained["training"].units) == ("epoch", 1)


def test_shares_of_a_method_add_up_to_one(trained: dict[str, Any]) -> None:
    assert {"training", "all", "one"} <= set(trained)
    for profile in trained.values():
        assert sum(row.share for row in profile.rows) == pytest.approx(1.0)
        assert all(row.share >= 0 for row in profile.rows)


def test_answers_of_all_items_cost_more_than_those_of_one(trained: dict[str, Any]) -> None:
    def macs(name: str) -> float:
        return sum(row.macs or 0 for row in trained[name].rows)

    assert macs("all") > 20 * macs("one") > 0
