"""What the time of a cell depends on, as far as it is known before anything runs: numbers of its data and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gkdbench.records.schema import DataInfo

NUMBERS = (
    "nodes", "edges", "features", "epochs", "width", "layers", "steps", "models", "heads", "experts", "k",
    "parameters", "graphs", "as_released", "inductive", "public", "no_patience",
)  # fmt: skip
"""Names of what `facts_of` returns; all but the last five are logarithms."""


def facts_of(config: Mapping[str, Any], data: DataInfo, split: str) -> list[float]:
    """The numbers called `NUMBERS` of a cell.

    Args:
        config: resolved fields of the method, as a record has them.
        data: as prepared for the split.
    """
    model = config.get("match_model") or config.get("model") or {}
    peers = config.get("peers") or ()
    models = len(peers) or _count(config.get("students")) or _count(config.get("members")) or 1
    heads = _count(model.get("heads")) or 1
    width = _count(model.get("hidden")) or heads * (_count(model.get("head_width")) or 8)
    layers, experts = _count(model.get("layers")) or 2, _count(model.get("experts")) or 1
    items = data.nodes if data.graphs == 1 else data.graphs
    batch = _count(config.get("batch_size"))
    parameters = experts * width * (data.features + (layers - 2) * width + data.classes)
    amounts = (
        data.nodes,
        data.edges + 1,
        data.features,
        _count(config.get("epochs")) or 200,
        width,
        layers,
        max(1.0, items / batch) if batch else 1,
        models,
        heads if config.get("backbone") == "gat" else 1,
        experts,
        _count(model.get("k")) or 1,
        parameters,
    )
    flags = (
        data.graphs > 1,
        config.get("variant") == "as_released",
        "ind" in split,
        split.startswith("planetoid"),
        config.get("patience") is None,
    )
    return [*(math.log(max(amount, 1)) for amount in amounts), *map(float, flags)]


def least_bytes(config: Mapping[str, Any], data: DataInfo, split: str) -> int:
    """Memory that no cell of this configuration can do without: its graph, and four numbers for each weight (itself,
    its gradient, two moments)."""
    parameters = math.exp(facts_of(config, data, split)[NUMBERS.index("parameters")])
    return 8 * (data.edges + data.nodes) + int(16 * parameters)


def _count(value: Any) -> int:
    """`value` where it is a positive integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
