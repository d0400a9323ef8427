"""Data sets that need no files. This table imports no torch; the generators live in `synthetic` and `digits`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gkdbench.data.catalogue import DatasetInfo
from gkdbench.errors import UserError, nearest

if TYPE_CHECKING:
    from gkdbench.data.task import Task

_NODE_SPLITS = ("builtin-random", "builtin-random-ind20")


def _info(
    name: str,
    kind: str,
    source: str,
    licence: str = "Apache-2.0 (generated)",
    **facts: Any,
) -> DatasetInfo:
    return DatasetInfo(name=name, kind=kind, reader="", source=source, licence=licence, **facts)


_DIGITS_LICENCE = "BSD-3-Clause (scikit-learn); UCI optical recognition of handwritten digits"

BUILTIN: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        _info(
            "digits-knn",
            "node",
            "gkdbench.data.digits:digits_knn",
            _DIGITS_LICENCE,
            stats={"nodes": 1797, "edges": 12618, "features": 64, "classes": 10},
            splits=_NODE_SPLITS,
            note="handwritten digits joined by nearest neighbours",
        ),
        _info(
            "digits-grid",
            "graph",
            "gkdbench.data.digits:digits_grid",
            _DIGITS_LICENCE,
            stats={
                "graphs": 1797,
                "nodes": 115008,
                "edges": 402528,
                "features": 3,
                "classes": 10,
            },
            splits=("random-80-10-10", "tu-10fold", "tu-10fold-testfold"),
            note="handwritten digits as 8x8 grid graphs",
        ),
        _info(
            "csbm",
            "node",
            "gkdbench.data.synthetic:csbm",
            stats={"nodes": 600, "edges": 4662, "features": 32, "classes": 4},
            splits=_NODE_SPLITS,
            note="seeded contextual stochastic block model",
        ),
        _info(
            "csbm-multilabel",
            "node",
            "gkdbench.data.synthetic:csbm_multilabel",
            stats={"nodes": 400, "edges": 3032, "features": 32, "classes": 5},
            splits=("node-80-10-10",),
            metric="micro_f1",
            multi_label=True,
            note="seeded overlapping block model, several labels a node",
        ),
        _info(
            "ppi-shaped",
            "node",
            "gkdbench.data.synthetic:ppi_shaped",
            stats={"graphs": 24, "nodes": 4800, "edges": 63706, "features": 50, "classes": 121},
            splits=("ppi",),
            metric="micro_f1",
            multi_label=True,
            note="seeded, 24 graphs with 121 labels a node, split by graphs; PPI's size: ppi-shaped:nodes=2373",
        ),
        _info(
            "powerlaw",
            "node",
            "gkdbench.data.synthetic:power_law",
            stats={"nodes": 10000, "edges": 94652, "features": 32, "classes": 8},
            splits=_NODE_SPLITS,
            note="seeded power-law graph of any size: powerlaw:n=100000,degree=20,d=64",
        ),
    )
}


def info(name: str) -> DatasetInfo | None:
    """Facts of a built-in set; sizes after a colon are ignored here. None if there is no such set."""
    return BUILTIN.get(name.partition(":")[0])


def loader(name: str) -> Callable[[], Task] | None:
    """The generator behind ``name`` or ``name:key=value,...``; None for other sets. It checks the ranges itself.

    Raises:
        UserError: an argument that the generator does not have, or no number.
    """
    base, _, arguments = name.partition(":")
    found = info(base)
    if found is None:
        return None
    module, _, attribute = found.source.partition(":")
    generator: Callable[..., Task] = getattr(import_module(module), attribute)
    chosen: dict[str, Any] = {}
    known = inspect.signature(generator).parameters
    for argument in filter(None, arguments.split(",")):
        key, _, value = argument.partition("=")
        if key not in known:
            raise UserError(
                f"{base}: expected an argument of its generator, got no argument {key!r}; {nearest(key, known)}"
            )
        if key in chosen:
            raise UserError(f"{base}: {key}: expected one value, got a second, {value!r}; give it once")
        wanted = type(known[key].default)
        try:
            chosen[key] = wanted(value)
            if not math.isfinite(chosen[key]):
                raise ValueError
        except ValueError:
            finite = "a finite number" if wanted is float else "a whole number"
            raise UserError(f"{base}: {key}: expected {finite}, got {value!r}") from None
    return lambda: generator(**chosen).with_(name=name) if chosen else generator()
