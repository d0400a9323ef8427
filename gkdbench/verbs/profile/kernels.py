"""``profile kernels``: operators and training steps compared with competitors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from gkdbench.errors import UserError
from gkdbench.verbs.printing import say
from gkdbench.verbs.profile.bench import Bench, Payload, device_named, measured, require_cpu
from gkdbench.verbs.profile.data import data_sets, loader, step_data

if TYPE_CHECKING:
    from gkdbench.measure.operators.bench import BenchSettings, CaseResult
    from gkdbench.measure.operators.problem import Case
    from gkdbench.measure.training_steps.gnn_steps import StepData


def kernels(args: argparse.Namespace) -> int:
    """``gkdbench profile kernels``. Exit codes: 0 measured; 1 a gate is red, or a bar is not met."""
    if args.list:
        return _print_names(args)
    return measured(args, "kernels", _kernels)


def _kernels(bench: Bench, payload: Payload) -> bool:
    args = bench.args
    work = _bars if args.bars else _steps if args.steps else _growth if args.growth else _cases
    return work(bench, payload)


def _cases(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.cases import all_cases, chosen, quick_cases

    args = bench.args
    table = quick_cases() if args.quick else all_cases(bench.device, data_sets(args.data))
    cases, fine = chosen(table, args.case), True
    payload["results"] = []
    for result in _run(bench, cases, bench.settings):
        print_result(result)
        fine &= result.green
        payload["results"].append(result.as_json())
    return fine


def _run(bench: Bench, cases: list[Case], settings: BenchSettings) -> Iterator[CaseResult]:
    from gkdbench.measure.operators.bench import run_cases

    load = loader(bench.args.data)
    return run_cases(cases, device=bench.device, clock=bench.clock, roofs=bench.roofs, settings=settings, load=load)


def print_result(result: CaseResult) -> None:
    """Ratios and reasons of one case; no seconds, which mean nothing on another machine."""
    say(f"\n{result.case.name}  [{result.caches}]  gate {'green' if result.green else 'RED: no ratio is printed'}")
    mine = result.fastest(ours=True)
    for row in result.rows:
        words = row.reason or row.status
        if row.status == "ok" and result.green and mine is not None:
            place = f"{row.percent_of_roof:.0f}% of the roof" if row.percent_of_roof is not None else ""
            if row is mine:
                words = f"the time that others are held against; {place}"
            elif (found := result.ratio(mine.name, row.name)) is not None:
                words = f"{mine.name} / this = {found}; {place}"
        say(f"  {row.name:44} {words}")


def _bars(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.targets import bars, candidates_of, hold
    from gkdbench.measure.tables import shown

    require_cpu(bench, "the bars are those of CPUs")
    lines = bars(quick=bench.args.quick)
    results, payload["results"], payload["bars"] = {}, [], []
    for case in dict.fromkeys(bar.case.name for bar in lines):
        one = next(bar.case for bar in lines if bar.case.name == case)
        only = candidates_of(lines, one)
        # requested candidates take part however long they compile
        own = replace(bench.settings, only=only, slow=bench.settings.slow and bool(only), memory=False)
        (results[case],) = _run(bench, [one], own)
        payload["results"].append(results[case].as_json())
    held = [hold(bar, results) for bar in lines]
    for one_held in held:
        bar, found = one_held.bar, one_held.ratio
        text = str(found) if found is not None else one_held.reason
        say(f"{one_held.verdict:13} {bar.what:36} <= {bar.limit:.2f} of {shown(one_held.against)}: {text}")
        payload["bars"].append({**asdict(one_held), "verdict": one_held.verdict})
    return all(one_held.verdict == "met" for one_held in held)


def _steps(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.tables import shown
    from gkdbench.measure.training_steps.gnn_steps import BARS, compare_steps, faster

    steps, settings = [], bench.settings
    for data in _step_data(bench.args):
        try:
            found = list(
                compare_steps(data, bench.clock, bench.device, rounds=settings.rounds, budget_s=settings.budget_s)
            )
        except ImportError as error:
            raise UserError(str(error)) from error
        steps += found
        for step in found:
            text = str(step.ratio) if step.ratio is not None else f"logits differ by {step.error:.1e}: no ratio"
            say(f"{step.data:18} {step.model:4} {shown(step.way):22} ours / PyG = {text}")
    payload["steps"] = [asdict(step) for step in steps]
    fine = True
    for way, least in BARS.items():
        factor = faster(steps, way)
        met = factor is not None and factor >= least
        fine &= met
        text = "not measured" if factor is None else f"{factor:.2f} times PyG's speed, {'met' if met else 'not met'}"
        say(f"{shown(way)}: geometric mean, target >= {least:g}: {text}")
    return fine


def _growth(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.growth import EDGES, grow

    edges = tuple(count // 100 for count in EDGES[1:]) if bench.args.quick else EDGES
    found = list(grow(bench.device, bench.clock, bench.roofs, bench.settings, edges))
    for one in found:
        powers = f"time ~ E^{one.time_exponent:.2f}, memory ~ E^{one.memory_exponent:.2f}"
        share = f"largest allocation {one.largest_share:.0%} of edges x features"
        say(f"{one.operator:22} {powers}, {share}: {'held' if one.held else 'not held'}")
    payload["growth"] = [asdict(one) for one in found]
    return all(one.held for one in found)


def _print_names(args: argparse.Namespace) -> int:
    from gkdbench.measure.operators.cases import all_cases, chosen, quick_cases

    table = quick_cases() if args.quick else all_cases(device_named(args.device), data_sets(args.data))
    say("\n".join(case.name for case in chosen(table, args.case)))
    return 0


def _step_data(args: argparse.Namespace) -> Iterator[StepData]:
    names = data_sets(args.data)
    if args.quick or not names:
        names = ("csbm",) if not names else names[:1]
    for name in names:
        yield step_data(name, args.data)
