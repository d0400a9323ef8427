"""``profile kernels``, ``profile methods``: operators and whole steps compared with competitors; ``profile docs``:
tables and plots from stored results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from gkdkernels import CSRGraph

    from gkdbench.measure.machine_peaks import MachinePeaks
    from gkdbench.measure.operators.bench import BenchSettings, CaseResult
    from gkdbench.measure.operators.problem import Case
    from gkdbench.measure.timers import Clock
    from gkdbench.measure.training_steps.gnn_steps import StepData
    from gkdbench.measure.training_steps.mutual_step import GraphData
    from gkdbench.measure.training_steps.pairwise import TimingComparison

FORMAT = 1  # of the JSON files


def kernels(args: argparse.Namespace) -> int:
    """``gkdbench profile kernels``. Exit codes: 0 measured; 1 a gate is red, or a bar is not met."""
    if args.list:
        return _print_names(args)
    return _measured(args, "kernels", _kernels)


def methods(args: argparse.Namespace) -> int:
    """``gkdbench profile methods``. Exit codes: 0 measured; 1 two sides disagree, or a promise is not met."""
    return _measured(args, "methods", _latency if args.latency else _methods)


def wanted_environment(threads: int) -> dict[str, str]:
    """What the measuring process runs under: threads, and the allocator's setting of the runner's workers."""
    from gkdbench.execute.processes.environment import ALLOCATOR

    if threads < 1:
        raise UserError(f"--threads: expected at least 1, got {threads}")
    quiet = {"KINETO_LOG_LEVEL": "99"}  # the profiler that counts allocations announces itself otherwise
    return {**ALLOCATOR, **quiet, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def words(args: argparse.Namespace) -> list[str]:
    """The arguments as they are typed."""
    found = []
    for name, value in sorted(vars(args).items()):
        if name == "verb" or value is None or value is False:
            continue
        found += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return found


Payload = dict[str, Any]
"""What is written as JSON."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how everything of one call is measured."""

    args: argparse.Namespace
    device: torch.device
    clock: Clock
    roofs: MachinePeaks
    settings: BenchSettings


def _measured(args: argparse.Namespace, action: str, work: Callable[[Bench, Payload], bool]) -> int:
    """Check the clock, measure the roofs, do `work` (False: something is red or not met) and write the payload."""
    environment = wanted_environment(args.threads)
    if any(os.environ.get(name) != value for name, value in environment.items()):
        # both the allocator and OpenMP read their settings when a process starts
        command = [sys.executable, "-m", "gkdbench.cli", "profile", action, *words(args)]
        return subprocess.run(command, env=os.environ | environment).returncode
    import torch

    from gkdbench.measure.machine_peaks import measure_roofs
    from gkdbench.measure.operators.bench import BenchSettings
    from gkdbench.measure.timers import check_clock, clock_for

    torch.set_num_threads(args.threads)
    device = _device(args.device)
    clock = clock_for(device)
    try:
        error = check_clock(clock, device)
    except RuntimeError as failure:
        raise UserError(f"{failure}; is the machine busy?") from failure
    roofs = measure_roofs(clock, device, quick=args.quick)
    settings = BenchSettings(
        rounds=5 if args.quick else args.rounds,
        budget_s=1.0 if args.quick else args.budget,
        slow=not args.quick,
        caches=args.caches,
    )
    print(
        f"{device}, {args.threads} threads, caches {args.caches}; clock checked: off by {error:.1%} on a known duration"
    )
    payload: Payload = {"format": FORMAT, "quick": args.quick, "threads": args.threads, "clock_error": error}
    payload |= {"roofs": asdict(roofs), "provenance": _provenance(device)}
    fine = work(Bench(args, device, clock, roofs, settings), payload)
    if args.json:
        _write(Path(args.json), payload)
        print(f"written: {args.json}")
    return 0 if fine else 1


def _write(path: Path, payload: Payload) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(payload, indent=1, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


def _kernels(bench: Bench, payload: Payload) -> bool:
    args = bench.args
    work = _bars if args.bars else _steps if args.steps else _growth if args.growth else _cases
    return work(bench, payload)


def _cases(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.cases import all_cases, chosen, quick_cases

    args = bench.args
    table = quick_cases() if args.quick else all_cases(bench.device, _data_sets(args.data))
    cases, fine = chosen(table, args.case), True
    payload["results"] = []
    for result in _run(bench, cases, bench.settings):
        print_result(result)
        fine &= result.green
        payload["results"].append(result.as_json())
    return fine


def _run(bench: Bench, cases: list[Case], settings: BenchSettings) -> Iterator[CaseResult]:
    from gkdbench.measure.operators.bench import run_cases

    load = _loader(bench.args.data)
    return run_cases(cases, device=bench.device, clock=bench.clock, roofs=bench.roofs, settings=settings, load=load)


def print_result(result: CaseResult) -> None:
    """Ratios and reasons of one case; no seconds, which mean nothing on another machine."""
    print(f"\n{result.case.name}  [{result.caches}]  gate {'green' if result.green else 'RED: no ratio is printed'}")
    mine = result.fastest(ours=True)
    for row in result.rows:
        words = row.reason or row.status
        if row.status == "ok" and result.green and mine is not None:
            place = f"{row.percent_of_roof:.0f}% of the roof" if row.percent_of_roof is not None else ""
            if row is mine:
                words = f"the time that others are held against; {place}"
            elif (found := result.ratio(mine.name, row.name)) is not None:
                words = f"{mine.name} / this = {found}; {place}"
        print(f"  {row.name:44} {words}")


def _bars(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.targets import bars, candidates_of, hold
    from gkdbench.measure.tables import shown

    _require_cpu(bench, "the bars are those of CPUs")
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
        print(f"{one_held.verdict:13} {bar.what:36} <= {bar.limit:.2f} of {shown(one_held.against)}: {text}")
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
            print(f"{step.data:18} {step.model:4} {shown(step.way):22} ours / PyG = {text}")
    payload["steps"] = [asdict(step) for step in steps]
    fine = True
    for way, least in BARS.items():
        factor = faster(steps, way)
        met = factor is not None and factor >= least
        fine &= met
        text = "not measured" if factor is None else f"{factor:.2f} times PyG's speed, {'met' if met else 'not met'}"
        print(f"{shown(way)}: geometric mean, target >= {least:g}: {text}")
    return fine


def _growth(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.operators.growth import EDGES, grow

    edges = tuple(count // 100 for count in EDGES[1:]) if bench.args.quick else EDGES
    found = list(grow(bench.device, bench.clock, bench.roofs, bench.settings, edges))
    for one in found:
        powers = f"time ~ E^{one.time_exponent:.2f}, memory ~ E^{one.memory_exponent:.2f}"
        share = f"largest allocation {one.largest_share:.0%} of edges x features"
        print(f"{one.operator:22} {powers}, {share}: {'held' if one.held else 'not held'}")
    payload["growth"] = [asdict(one) for one in found]
    return all(one.held for one in found)


def _methods(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.tables import shown
    from gkdbench.measure.training_steps.mutual_step import joint_on_graphs, joint_on_nodes
    from gkdbench.measure.training_steps.whole_methods import RBM, alignahead, mutual_loss, rbm, structure_memory

    _require_cpu(bench, "the comparison of methods is that of CPUs")
    quick, found = bench.args.quick, []

    def show(one: TimingComparison) -> None:
        text = str(one.ratio) if one.ratio is not None else f"the two differ by {one.error:.1e}: no ratio"
        target = f" (target <= {one.limit:.2f})" if one.limit is not None else ""
        line = f"{one.verdict or 'no target':13} {one.what} on {one.data}: ours / {one.against} = {text}{target}"
        print(shown(line), flush=True)
        found.append(one)

    def data(name: str) -> StepData:
        return _data("csbm" if quick else name, bench.args.data)

    duels = [rbm(data(name), config) for name, config in RBM.items()]
    for duel in chain(*duels, alignahead(data("amazon-photo"))):
        show(duel.compare(bench.clock, bench.settings))
    show(structure_memory(quick=quick))
    show(mutual_loss(bench.device, bench.clock, bench.roofs, bench.settings, quick=quick))
    if find_spec("torch_geometric") is None:
        print("not measured: joint steps compared with PyG's; they need torch_geometric: pip install 'gkdbench[pyg]'")
    else:
        graphs = _graphs("digits-grid" if quick else "ogbg-molbace", bench.args.data)
        for duel in (*joint_on_nodes(data("pubmed")), joint_on_graphs(graphs)):
            show(duel.compare(bench.clock, bench.settings))
    payload["methods"] = [{**asdict(one), "verdict": one.verdict} for one in found]
    return all(one.verdict in ("met", "") for one in found)


def _latency(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.training_steps.latency_vs_k import latency_against_k, sizes
    from gkdbench.measure.training_steps.whole_methods import RBM

    _require_cpu(bench, "the latency of mixtures is that of CPUs")
    payload["latency"] = _kept(bench, payload)
    for name, config in RBM.items():
        data = _data("csbm" if bench.args.quick else name, bench.args.data)
        data = replace(data, name=name)
        have = {curve["rows"] for curve in payload["latency"] if curve["data"] == name}
        sizes_left = tuple(size for size in sizes(data) if size not in have)
        for curve in latency_against_k(data, config, sizes_left, bench.clock, bench.settings):
            payload["latency"].append({**asdict(curve), "git_commit": payload["provenance"]["git_commit"]})
            if bench.args.json:
                _write(Path(bench.args.json), payload)
        for stored in (curve for curve in payload["latency"] if curve["data"] == name):
            for point in stored["points"]:
                found = point["ratio"]
                text = "{value:.2f} [{low:.2f}, {high:.2f}] n={n}".format(**found) if found else "the two differ"
                where = f"{name}, {stored['rows']} rows, {point['k']} of {stored['experts']} experts"
                print(f"{where}: time / that of k = 1 = {text}, multiply-adds {point['macs']:.2f}", flush=True)
    return all(point["ratio"] for curve in payload["latency"] for point in curve["points"])


def _kept(bench: Bench, payload: Payload) -> list[dict[str, Any]]:
    """Curves that an earlier call wrote to the same file on this machine; each names the commit that measured it."""
    path = Path(bench.args.json or "")
    if not bench.args.json or not path.is_file():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))

    def state(one: Payload) -> list[Any]:
        where = one["provenance"]
        return [one["threads"], one["quick"], where["cpu"], where["torch"]]

    if before.get("format") != FORMAT or "latency" not in before:
        raise UserError(
            f"{path}: expected results of an earlier run or no file, got something else; name another file, or remove "
            "it"
        )
    same = state(before) == state(payload)
    print(f"{path}: continues" if same else f"{path}: of another machine or number of threads; starts again")
    return list(before["latency"]) if same else []


def _require_cpu(bench: Bench, what: str) -> None:
    if bench.device.type != "cpu":
        raise UserError(f"{what}: expected --device cpu, got --device {bench.device}")


def docs(args: argparse.Namespace) -> int:
    """``gkdbench profile docs``: fill the marked blocks of a Markdown file, write the plots next to it."""
    from gkdbench.measure.tables import fill, plots, read_results

    stored = read_results([Path(path) for path in args.paths])
    into = Path(args.into)
    if not into.is_file():
        raise UserError(f"{into}: expected a Markdown file with marks like <!-- bench bars -->, got no file")
    into.write_text(fill(into.read_text(encoding="utf-8"), stored), encoding="utf-8")
    for name, text in plots(stored).items():
        (into.parent / name).write_text(text, encoding="utf-8")
    print(f"filled: {into}")
    return 0


def _print_names(args: argparse.Namespace) -> int:
    from gkdbench.measure.operators.cases import all_cases, chosen, quick_cases

    table = quick_cases() if args.quick else all_cases(_device(args.device), _data_sets(args.data))
    print("\n".join(case.name for case in chosen(table, args.case)))
    return 0


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device: expected auto, cpu or cuda:i, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device: expected one of {torch.cuda.device_count()} CUDA devices, got {name}")
    return device


def _data_sets(folder: str | None) -> tuple[str, ...]:
    """Those whose files are available."""
    from gkdbench.data.datasets import available
    from gkdbench.measure.operators.graphs import DATA_SETS

    return tuple(name for name in DATA_SETS if available(name, data=folder))


def _loader(folder: str | None) -> Any:
    def load(name: str) -> CSRGraph:
        from gkdbench.data.datasets import load_task

        return load_task(name, data=folder).graph

    return load


def _step_data(args: argparse.Namespace) -> Iterator[StepData]:
    names = _data_sets(args.data)
    if args.quick or not names:
        names = ("csbm",) if not names else names[:1]
    for name in names:
        yield _data(name, args.data)


def _data(name: str, folder: str | None) -> StepData:
    from gkdbench.data.datasets import load_task
    from gkdbench.data.preprocess import with_self_loops
    from gkdbench.measure.training_steps.gnn_steps import StepData

    task = load_task(name, data=folder)
    return StepData(name, with_self_loops(task.graph), task.features, task.labels, task.num_classes)


def _graphs(name: str, folder: str | None) -> GraphData:
    import torch

    from gkdbench.data.datasets import load_task
    from gkdbench.data.nodes import Space
    from gkdbench.measure.training_steps.mutual_step import GraphData
    from gkdbench.protocol.inputs import Inputs

    task = load_task(name, data=folder)
    if task.graph_ptr is None:
        raise UserError(f"--data: expected a set of graphs, got {name}, which is one graph")
    segments, labels = task.graph_ptr.long(), task.labels.long().flatten()
    nodes, graphs = (Space(name, torch.arange(n)) for n in (task.num_nodes, labels.numel()))
    inputs = Inputs(nodes, graphs, task.graph, task.features, segments)
    return GraphData(name, inputs, labels, int(labels.max()) + 1)


def _provenance(device: torch.device) -> dict[str, Any]:
    from gkdbench.execute.processes.environment import allocator_of
    from gkdbench.execute.provenance import provenance
    from gkdbench.measure.operators.bench import CaseResult

    found = provenance(CaseResult, device=str(device), allocator=allocator_of(dict(os.environ)))
    return found.model_dump(mode="json")
