"""The ``smoke`` suite: every registered method on built-in data, made from the registry and never versioned."""

from __future__ import annotations

from typing import Any

from gkdbench.execute.suite import SMOKE, Grid, MethodEntry, Suite
from gkdbench.training.registry import METHODS

NODE = ("digits-knn", ["builtin-random", "builtin-random-ind20"])
GRAPH = ("digits-grid", ["random-80-10-10"])
EPOCHS = {"node": 1200, "graph": 40}
"""Epochs that all cells of a kind share out among themselves: more methods, fewer epochs each."""
TIME_LIMIT_S = 60.0
SUMMARY = "every registered method on built-in data, tiny budgets"


def smoke_suite() -> Suite:
    """Every method whose kinds fit, each with its own tiny budget, capped so that the whole stays within minutes."""
    methods = {name: METHODS.get(name) for name in METHODS.names()}
    grids = []
    budgets: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, (dataset, splits) in (("node", NODE), ("graph", GRAPH)):
        fitting = [name for name, cls in methods.items() if kind in cls.kinds]
        if not fitting:
            continue
        cap = max(2, EPOCHS[kind] // (len(fitting) * len(splits)))
        chosen = {name: _budget(dict(methods[name].smoke), cap) for name in fitting}
        budgets[dataset] = chosen
        entries = [MethodEntry(method=name, overrides=chosen[name]) for name in fitting]
        grids.append(Grid(datasets=[dataset], splits=splits, methods=entries))
    return Suite(
        name=SMOKE,
        summary=SUMMARY,
        seeds=(0,),
        time_limit_s=TIME_LIMIT_S,
        grids=grids,
        requirement_overrides=budgets,
    )


def _budget(own: dict[str, Any], cap: int) -> dict[str, Any]:
    return own | {"epochs": min(own["epochs"], cap)} if "epochs" in own else own
