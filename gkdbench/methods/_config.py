"""From a name and overrides to a method with every field set: defaults, published settings, the caller's word."""

from __future__ import annotations

import dataclasses
import importlib.resources
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gkdbench.errors import UnknownName, UserError
from gkdbench.methods import METHODS
from gkdbench.methods._base import Method


def resolve(
    name: str, overrides: Mapping[str, Any] | None = None, *, dataset: str | None = None, recipe: str | None = None
) -> Method:
    """The method `name` with every hyper-parameter decided.

    Later wins: field defaults, then of ``configs/<name>.toml`` beside the method's file: ``[default]``,
    ``[backbone.<backbone>]``, ``[dataset.<dataset>]``, ``[backbone.<b>.<dataset>]``, ``[recipe.<recipe>]`` and
    ``[recipe.<recipe>.<dataset>]`` (a recipe replaces the tables before it), then `overrides`.

    Raises:
        UnknownName: unknown method, recipe or key (with the nearest names).
        UserError: a value of the wrong type or out of range.
    """
    cls = METHODS.get(name)
    known = {field.name for field in dataclasses.fields(cls)}
    chosen = dict(overrides or {})
    recipe = chosen.pop("recipe", None) or recipe
    tables = _tables(cls.__module__, name)
    backbone = chosen.get("backbone", _default_backbone(cls, tables, recipe))
    values = _published(tables, name, backbone, dataset, recipe) | chosen
    if recipe is not None:
        values["recipe"] = recipe
    for key in values:
        if key not in known:
            raise UnknownName(f"setting of method {name!r}", key, known)
    if values.get("variant", "corrected") not in cls.variants:
        raise UserError(f"method {name!r} has variants {', '.join(cls.variants)}; got {values['variant']!r}")
    return _validated(cls, name, values)


def recipes(name: str) -> list[str]:
    """Names of the published configurations of method `name`."""
    return sorted(_tables(METHODS.get(name).__module__, name).get("recipe", {}))


def _published(
    tables: Mapping[str, Any], name: str, backbone: str | None, dataset: str | None, recipe: str | None
) -> dict[str, Any]:
    if recipe is not None:
        if recipe not in tables.get("recipe", {}):
            raise UnknownName(f"recipe of method {name!r}", recipe, tables.get("recipe", {}))
        return _flat(tables["recipe"][recipe]) | _flat(tables["recipe"][recipe].get(dataset or "", {}))
    of_backbone = tables.get("backbone", {}).get(backbone or "", {})
    return (
        _flat(tables.get("default", {}))
        | _flat(of_backbone)
        | _flat(tables.get("dataset", {}).get(dataset or "", {}))
        | _flat(of_backbone.get(dataset or "", {}))
    )


def _default_backbone(cls: type[Method], tables: Mapping[str, Any], recipe: str | None) -> str | None:
    value = tables.get("recipe", {}).get(recipe or "", {}).get("backbone") or tables.get("default", {}).get("backbone")
    if value is None:
        value = next((f.default for f in dataclasses.fields(cls) if f.name == "backbone"), None)
    return value if isinstance(value, str) else None


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table without its sub-tables."""
    return {key: value for key, value in table.items() if not isinstance(value, Mapping)}


@cache
def _tables(module: str, name: str) -> dict[str, Any]:
    """``configs/<name>.toml`` in the package of the method's file; empty when there is none."""
    package = module.rpartition(".")[0] or module
    root = importlib.resources.files(package)
    path = root / "configs" / f"{name.replace('-', '_')}.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{Path(str(path)).name}: not valid TOML ({error})") from None


def _validated(cls: type[Method], name: str, values: dict[str, Any]) -> Method:
    """Build the method after strict validation of every value against its field's type and range."""
    try:
        method: Method = _adapter(cls).validate_python(_tuples(cls, values))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc'])}: got {e.get('input')!r}, wanted: {e['msg']}" for e in error.errors()
        ]
        raise UserError(f"method {name!r}: " + "; ".join(lines)) from None
    return method


def _tuples(cls: type[Method], values: dict[str, Any]) -> dict[str, Any]:
    """TOML has lists only; fields that hold several values are tuples, and integers stand for floats."""
    types = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    found = {}
    for key, value in values.items():
        wants = types.get(key, "")
        if isinstance(value, list) and "tuple" in wants:
            value = tuple(value)
        elif isinstance(value, int) and not isinstance(value, bool) and "float" in wants:
            value = float(value)
        found[key] = value
    return found


@cache
def _adapter(cls: type[Method]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)
