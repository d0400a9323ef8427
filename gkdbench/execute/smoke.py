"""The ``smoke`` suite: every registered method on built-in data, made from the registry and never versioned."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gkdbench.execute.suite import SMOKE, Grid, MethodEntry, Suite
from gkdbench.training.registry import METHODS

if TYPE_CHECKING:
    from gkdbench.training.method import Method

NODE = ("digits-knn", ["builtin-random", "builtin-random-ind20"])
GRAPH = ("digits-grid", ["random-80-10-10"])
EPOCHS = {"node": 1200, "graph": 40}
"""Epochs that all cells of a kind share out among themselves: more methods, fewer epochs each."""
TIME_LIMIT_S = 60.0
SUMMARY = "every registered method on built-in data, tiny budgets"


def smoke_suite() -> Suite:
    """Every method whose kinds fit, each with its own tiny budget, capped so that the whole stays within minutes."""
    methods = METHODS.usable()
    grids = []
    budgets: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, (dataset, splits) in (("node", NODE), ("graph", GRAPH)):
        fitting = [name for name, cls in methods.items() if kind in cls.kinds]
        if not fitting:
            continue
        cap = max(2, EPOCHS[kind] // (len(fitting) * len(splits)))
        chosen = {name: _budget(methods[name], cap) for name in fitting}
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


def _budget(method: type[Method], cap: int) -> dict[str, Any]:
    """The method's own tiny budget without keys that it does not have: `Method.smoke` assumes epochs."""
    known = {field.name for field in dataclasses.fields(method)}
    own = {key: value for key, value in method.smoke.items() if key in known or key != "epochs"}
    return own | {"epochs": min(own["epochs"], cap)} if "epochs" in own else own
