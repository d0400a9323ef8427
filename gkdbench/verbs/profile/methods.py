"""``profile methods``: steps and inference of whole methods compared with the structure of the official code."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.verbs.printing import say
from gkdbench.verbs.profile.bench import FORMAT, Bench, Payload, measured, require_cpu, write
from gkdbench.verbs.profile.data import graph_data, step_data

if TYPE_CHECKING:
    from gkdbench.measure.training_steps.gnn_steps import StepData
    from gkdbench.measure.training_steps.pairwise import TimingComparison


def methods(args: argparse.Namespace) -> int:
    """``gkdbench profile methods``. Exit codes: 0 measured; 1 two sides disagree, or a promise is not met."""
    return measured(args, "methods", _latency if args.latency else _methods)


def _methods(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.tables import shown
    from gkdbench.measure.training_steps.mutual_step import joint_on_graphs, joint_on_nodes
    from gkdbench.measure.training_steps.whole_methods import RBM, alignahead, mutual_loss, rbm, structure_memory

    require_cpu(bench, "the comparison of methods is that of CPUs")
    quick, found = bench.args.quick, []

    def show(one: TimingComparison) -> None:
        text = str(one.ratio) if one.ratio is not None else f"the two differ by {one.error:.1e}: no ratio"
        target = f" (target <= {one.limit:.2f})" if one.limit is not None else ""
        line = f"{one.verdict or 'no target':13} {one.what} on {one.data}: ours / {one.against} = {text}{target}"
        say(shown(line), flush=True)
        found.append(one)

    def data(name: str) -> StepData:
        return step_data("csbm" if quick else name, bench.args.data)

    duels = [rbm(data(name), config) for name, config in RBM.items()]
    for duel in chain(*duels, alignahead(data("amazon-photo"))):
        show(duel.compare(bench.clock, bench.settings))
    show(structure_memory(quick=quick))
    show(mutual_loss(bench.device, bench.clock, bench.roofs, bench.settings, quick=quick))
    if find_spec("torch_geometric") is None:
        say("not measured: joint steps compared with PyG's; they need torch_geometric: pip install 'gkdbench[pyg]'")
    else:
        graphs = graph_data("digits-grid" if quick else "ogbg-molbace", bench.args.data)
        for duel in (*joint_on_nodes(data("pubmed")), joint_on_graphs(graphs)):
            show(duel.compare(bench.clock, bench.settings))
    payload["methods"] = [{**asdict(one), "verdict": one.verdict} for one in found]
    return all(one.verdict in ("met", "") for one in found)


def _latency(bench: Bench, payload: Payload) -> bool:
    from gkdbench.measure.training_steps.latency_vs_k import latency_against_k, sizes
    from gkdbench.measure.training_steps.whole_methods import RBM

    require_cpu(bench, "the latency of mixtures is that of CPUs")
    payload["latency"] = _kept(bench, payload)
    for name, config in RBM.items():
        data = step_data("csbm" if bench.args.quick else name, bench.args.data)
        data = replace(data, name=name)
        have = {curve["rows"] for curve in payload["latency"] if curve["data"] == name}
        sizes_left = tuple(size for size in sizes(data) if size not in have)
        for curve in latency_against_k(data, config, sizes_left, bench.clock, bench.settings):
            payload["latency"].append({**asdict(curve), "git_commit": payload["provenance"]["git_commit"]})
            if bench.args.json:
                write(Path(bench.args.json), payload)
        for stored in (curve for curve in payload["latency"] if curve["data"] == name):
            for point in stored["points"]:
                found = point["ratio"]
                text = "{value:.2f} [{low:.2f}, {high:.2f}] n={n}".format(**found) if found else "the two differ"
                where = f"{name}, {stored['rows']} rows, {point['k']} of {stored['experts']} experts"
                say(f"{where}: time / that of k = 1 = {text}, multiply-adds {point['macs']:.2f}", flush=True)
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
    say(f"{path}: continues" if same else f"{path}: of another machine or number of threads; starts again")
    return list(before["latency"]) if same else []
