"""The module of stored weights: built again from its backbone's settings, without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gkdbench.errors import UnknownName
from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.model import EdgeBackbone, Model
from gkdbench.nn.random import Randomness


def rebuild_module(
    backbone: str, settings: Mapping[str, Any], *, inputs: int, classes: int, edge_width: int = 0
) -> Model:
    """A module of `backbone` with `settings`, in evaluation mode; its weights are initial ones, to be replaced.

    Args:
        settings: as stored; lists are read as tuples.
        inputs, classes: columns that it reads, and logits that it gives.
        edge_width: columns of the edge features; 0: there are none.

    Raises:
        UnknownName: no such backbone, or it has no such setting.
    """
    cls = BACKBONES.get(backbone)
    known = {field.name for field in dataclasses.fields(cls)}
    for key in settings:
        if key not in known:
            raise UnknownName(f"setting of backbone {backbone!r}", key, known)
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    config = cls(**plain)
    if isinstance(config, EdgeBackbone):
        module = config.build_with_edges(inputs, classes, edge_width, Randomness(0))
    else:
        module = config.build(inputs, classes, Randomness(0))
    built: Model = module.eval()
    return built
