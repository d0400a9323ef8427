"""The table of cases: operators x shapes x dtypes x directions, as data."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module

import torch
from gkdkernels import CSRGraph

from gkdbench.errors import UserError
from gkdbench.measure.operators.graphs import DATA_SETS
from gkdbench.measure.operators.problem import Case, OperatorProblem

MODULES = {
    "spmm": "aggregation",
    "gat_aggregate": "attention",
    "mutual_kl": "mutual_kl",
    "soft_kl": "soft_kl",
    "structure_kl": "structure",
    "edge_log_probs": "edge_probs",
    "edge_dot": "edge_values",
    "edge_softmax": "edge_values",
    "experts": "experts",
    "route_by_memory": "expert_parts",
    "expert_linear": "expert_parts",
    "rbm_layer": "expert_parts",
    "readout": "segments",
}
ON_GRAPHS = ("spmm", "gat_aggregate", "structure_kl", "edge_log_probs", "edge_dot", "edge_softmax")
EXPERT_PARTS = ("route_by_memory", "expert_linear")  # of "experts", differentiable
OPTIONS = {
    "spmm": ("sum", "mean", "max"),
    "structure_kl": ("cosine", "laplace"),
    "readout": ("sum", "mean", "max", "softmax"),
}
ARXIV, PRODUCTS = "power-law-arxiv", "power-law-products"
PRODUCTS_BYTES = 48 << 30  # memory that the cases of this size need

_ATTENTION = {"heads": 4, "width": 32}
_PEERS = ((4, 40), (8, 47))  # K, C
_EXPERTS = ((8, 3), (32, 2))  # E, k


def build(case: Case, graph: CSRGraph | None, device: torch.device) -> OperatorProblem:
    """The problem of a case; `graph` is the one it names, None where it names none."""
    module = import_module(f"gkdbench.measure.operators.{MODULES[case.operator]}")
    found: OperatorProblem = module.problem(case, graph if case.graph else device)
    return found


def quick_cases() -> Iterator[Case]:
    """Every operator and option on tiny inputs, both directions: they show that the machinery works, nothing else."""
    for direction in ("fwd", "fwd+bwd"):
        for reduce in OPTIONS["spmm"]:
            yield Case("spmm", {"width": 16}, "power-law-tiny", reduce, direction=direction)
        yield Case("gat_aggregate", {"heads": 2, "width": 8}, "power-law-tiny", direction=direction)
        for kernel in OPTIONS["structure_kl"]:
            yield Case("structure_kl", {"width": 16}, "power-law-tiny", kernel, direction=direction)
        yield Case("edge_log_probs", {"width": 16}, "power-law-tiny", "cosine", direction=direction)
        yield Case("edge_dot", {"width": 16}, "power-law-tiny", direction=direction)
        yield Case("edge_softmax", {"heads": 2}, "power-law-tiny", direction=direction)
        yield Case("mutual_kl", {"peers": 3, "nodes": 200, "classes": 7}, direction=direction)
        yield Case("soft_kl", {"nodes": 200, "classes": 7}, direction=direction)
        for operator in ("experts", *EXPERT_PARTS):
            yield Case(operator, {"nodes": 200, "width": 16, "experts": 4, "chosen": 2}, direction=direction)
        for readout in OPTIONS["readout"]:
            yield Case("readout", {"graphs": 20, "nodes": 300, "width": 8}, option=readout, direction=direction)
    yield Case("rbm_layer", {"nodes": 200, "width": 16, "experts": 4, "chosen": 2}, direction="fwd")


def all_cases(device: torch.device, data_sets: tuple[str, ...] = DATA_SETS) -> Iterator[Case]:
    """What a full run measures on this kind of device.

    Args:
        data_sets: those whose graphs are available.
    """
    dtypes = ("float32", "bfloat16") if device.type == "cuda" else ("float32",)
    for dtype in dtypes:
        for direction in ("fwd", "fwd+bwd"):
            for graph in _graphs(device, data_sets):
                widths = (64, 128, 256) if graph in (ARXIV, PRODUCTS) and device.type == "cuda" else (128,)
                for width in widths:
                    for reduce in OPTIONS["spmm"]:
                        yield Case("spmm", {"width": width}, graph, reduce, dtype, direction)
                yield Case("gat_aggregate", _ATTENTION, graph, "", dtype, direction)
                for kernel in OPTIONS["structure_kl"]:
                    yield Case("structure_kl", {"width": 128}, graph, kernel, dtype, direction)
                yield Case("edge_log_probs", {"width": 128}, graph, "cosine", dtype, direction)
                yield Case("edge_dot", {"width": 128}, graph, "", dtype, direction)
                yield Case("edge_softmax", {"heads": 4}, graph, "", dtype, direction)
            for peers, classes in ((4, 7), *_PEERS):
                nodes = 2_708 if classes == 7 else 169_343
                sizes = {"peers": peers, "nodes": nodes, "classes": classes}
                yield Case("mutual_kl", sizes, dtype=dtype, direction=direction)
            yield Case("soft_kl", {"nodes": 169_343, "classes": 40}, dtype=dtype, direction=direction)
            for experts, chosen in _EXPERTS:
                for operator in ("experts", *EXPERT_PARTS):
                    yield Case(operator, _expert_sizes(experts, chosen), dtype=dtype, direction=direction)
            for readout in OPTIONS["readout"]:
                yield Case("readout", {"graphs": 4_000, "nodes": 100_000, "width": 64}, "", readout, dtype, direction)
        for experts, chosen in _EXPERTS:
            yield Case("rbm_layer", _expert_sizes(experts, chosen), dtype=dtype, direction="fwd")
    if device.type == "cpu":
        yield Case("spmm", {"width": 128}, ARXIV, "sum", "bfloat16", "fwd")


def _graphs(device: torch.device, data_sets: tuple[str, ...]) -> list[str]:
    fits = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= PRODUCTS_BYTES
    return [*data_sets, ARXIV, *([PRODUCTS] if fits else [])]


def _expert_sizes(experts: int, chosen: int) -> dict[str, int]:
    return {"nodes": 20_000, "width": 256, "experts": experts, "chosen": chosen}


def chosen(cases: Iterator[Case], pattern: str | None) -> list[Case]:
    """The cases whose names match a shell pattern, or contain it.

    Raises:
        UserError: none does; the message lists the operators.
    """
    table = list(cases)
    found = [case for case in table if pattern is None or pattern in case.name or fnmatchcase(case.name, pattern)]
    if not found:
        names = ", ".join(sorted({case.name.split("/")[0] for case in table}))
        raise UserError(f"no case matches {pattern!r}: expected names that begin with {names} (`--list` prints all)")
    return found
