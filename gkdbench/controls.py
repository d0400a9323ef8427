"""Controls: rows of a table that a method should beat. The kinds there are, and when a configuration is one.

Imported by methods, which declare them, and by records, which hold them: it imports neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

Control = Literal["matched_size", "several_models", "regularised", "fixed_routing", "no_transfer"]
"""Kinds of controls.

matched_size: a plain model with as many parameters or multiply-adds as the method's.
several_models: the best, or the ensemble, of several models that were trained alone.
regularised: regularisation that needs no teacher and no peers.
fixed_routing: the method's mixture of experts, with a routing that learns nothing.
no_transfer: the method's own training loop, with the transfer between models switched off.
"""
CONTROLS: tuple[Control, ...] = get_args(Control)


def holds(when: Mapping[str, Collection[Any]], config: Mapping[str, Any]) -> bool:
    """Whether `config` has one of the given values in every one of the given fields.

    Args:
        when: field (``"lam"``, or ``"model.routing"`` inside a table) -> its values; empty: always.
        config: the fields of a method; a missing one has no value.
    """
    return all(_value(config, field) in values for field, values in when.items())


def _value(config: Mapping[str, Any], field: str) -> Any:
    value: Any = config
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
