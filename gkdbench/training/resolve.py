"""From a name and overrides to a method with every field set: defaults, published settings, the caller's word.

Order: find the method and its tables, choose the recipe, merge the published values and then the caller's, complete the
backbones' settings, and check every value.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
import tomllib
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gkdbench.errors import UnknownName, UserError
from gkdbench.nn.model import neutral_defaults, settings_of
from gkdbench.protocol.evaluation_graphs import setting_of
from gkdbench.training.method import Method
from gkdbench.training.models import backbone_config, validate_dataclass
from gkdbench.training.registry import METHODS

OLD_KEYS = {"fitting": "default_recipe", "fitted": "default_recipe_overrides"}
"""Keys of configuration files in version 0.1, and what they are called now."""


def resolve(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    recipe: str | None = None,
) -> Method:
    """The method `name` with every hyper-parameter decided.

    Later wins: field defaults, then of ``configs/<name>.toml`` next to the method's file the tables ``[default]``,
    ``[backbone.<backbone>]``, ``[for.<where>]``, ``[backbone.<backbone>.<where>]``, then `overrides`. ``<where>`` is
    "graph" where the split is one of graphs, then the data set, and then the first word of the split id ("planetoid",
    "cpf", ...: features are scaled differently). A recipe, ``[recipe.<name>]`` and ``[recipe.<name>.<where>]``, stands
    in for the tables before it.

    A file that says ``default_recipe = "paper_{setting}_{teacher}"`` has that recipe by default, where it has a table
    for the data set: setting is "tran" or "ind", teacher the one asked for; names may have ``{dataset}`` in them too. A
    default recipe leaves the teacher as it is, for all students of a table share one: its own comes with the recipe
    asked for by name. ``[default_recipe_overrides.<where>]`` goes over a default recipe only. ``recipe=None`` in
    `overrides` asks for none.

    Raises:
        UnknownName: unknown method, recipe or key (with the nearest names).
        UserError: a value of the wrong type or out of range.
    """
    cls = METHODS.get(name)
    known = {field.name for field in dataclasses.fields(cls)}
    chosen = dict(overrides or {})
    tables = _tables(cls.__module__, name)
    default_recipe = None if recipe or "recipe" in chosen else _default_recipe(cls, tables, dataset, split, chosen)
    recipe = chosen.pop("recipe", default_recipe) or recipe
    where = ["graph" if setting_of(split or "") == "graph" else "", dataset or "", (split or "").partition("-")[0]]
    backbone = chosen.get("backbone", _default_backbone(cls, tables, recipe))
    named = backbone if isinstance(backbone, str) else None  # anything else is refused with the other values below
    published = _published(tables, name, known, named, where, recipe)
    if default_recipe is not None:
        published.pop("teacher_recipe", None)
        for place in where:
            published = deep_merge(published, tables.get("default_recipe_overrides", {}).get(place, {}))
    values = deep_merge(published, chosen)
    if recipe is not None:
        values["recipe"] = recipe
    if values.get("variant", "corrected") not in cls.variants:
        raise UserError(
            f"method {name!r}: variant: expected one of {', '.join(cls.variants)}, got {values['variant']!r}"
        )
    backbone, settings = values.get("backbone", backbone), values.get("model", {})
    if "model" in known and isinstance(backbone, str) and isinstance(settings, Mapping):
        values["model"] = settings_of(backbone_config(backbone, settings))
    if "models" in known:
        values |= _settings_of_peers(cls, values, chosen.get("models", {}))
    _refuse_non_finite(values, f"method {name!r}")
    method: Method = validate_dataclass(cls, values, f"method {name!r}")
    return method


def resolve_stored(name: str, config: Mapping[str, Any]) -> Method:
    """The method whose `gkdbench.training.method.Method.config` is `config`, as jobs and records hold it.

    What that leaves out is at its default, also where a recipe that it names says otherwise.

    Raises:
        As `resolve`.
    """
    values = neutral_defaults(METHODS.get(name)) | dict(config)
    if isinstance(values.get("backbone"), str) and isinstance(values.get("model"), Mapping):
        values["model"] = _complete(values["backbone"], values["model"])
    if isinstance(values.get("models"), Mapping):
        values["models"] = {backbone: _complete(backbone, own) for backbone, own in values["models"].items()}
    return resolve(name, values)


def _complete(backbone: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's settings with those that are left out at their default."""
    return neutral_defaults(type(backbone_config(backbone, {}))) | dict(settings)


def _refuse_non_finite(value: Any, where: str) -> None:
    """Refuse inf and nan among hyper-parameters, at any depth: no training has a use for them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, got {value}; leave it out for the default")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}: {key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_non_finite(item, where)


def recipes(name: str) -> list[str]:
    """Names of the published configurations of method `name`."""
    return sorted(_tables(METHODS.get(name).__module__, name).get("recipe", {}))


def _published(
    tables: Mapping[str, Any], name: str, known: set[str], backbone: str | None, where: list[str], recipe: str | None
) -> dict[str, Any]:
    def level(table: Mapping[str, Any]) -> dict[str, Any]:
        """A table's own values, without its sub-tables (``model`` is a value)."""
        return {key: value for key, value in table.items() if key in known or not isinstance(value, Mapping)}

    if recipe is not None:
        if recipe not in tables.get("recipe", {}):
            raise UnknownName(f"recipe of method {name!r}", recipe, tables.get("recipe", {}))
        own = tables["recipe"][recipe]
        levels = [own, *(own.get(place, {}) for place in where)]
    else:
        of_backbone = tables.get("backbone", {}).get(backbone or "", {})
        levels = [tables.get("default", {}), of_backbone]
        for place in where:
            levels += [tables.get("for", {}).get(place, {}), of_backbone.get(place, {})]
    values: dict[str, Any] = {}
    for table in levels:
        values = deep_merge(values, level(table))
    return values


def deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` overridden by `above`; tables (a backbone's settings, an included file's) are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _settings_of_peers(cls: type[Method], values: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
    """Every setting of every peer's backbone; nothing where peers or settings are of a wrong type (refused later)."""
    peers, models = _peers(cls, values), values.get("models", {})
    if not peers or not isinstance(models, Mapping):
        return {}
    for unused in sorted(set(chosen) - set(peers)):
        raise UserError(
            f"models.{unused}: expected a backbone of the peers {', '.join(peers)}, got {unused!r}, which no peer has"
        )
    return {"models": {name: settings_of(backbone_config(name, models.get(name, {}))) for name in peers}}


def _peers(cls: type[Method], values: Mapping[str, Any]) -> list[str]:
    """The backbones of the peers that `values` or else the field's default names; empty if they are not names."""
    peers = values.get("peers", _default(cls, {}, "peers"))
    good = isinstance(peers, (list, tuple)) and all(isinstance(name, str) for name in peers)
    return list(peers) if good else []


def _default_backbone(cls: type[Method], tables: Mapping[str, Any], recipe: str | None) -> str | None:
    value = tables.get("recipe", {}).get(recipe or "", {}).get("backbone") or _default(cls, tables, "backbone")
    return value if isinstance(value, str) else None


def _default(cls: type[Method], tables: Mapping[str, Any], key: str) -> Any:
    """The value in ``[default]``, or else of the field `key` itself; None without such a field."""
    own = next((field.default for field in dataclasses.fields(cls) if field.name == key), None)
    return tables.get("default", {}).get(key) or own


def _default_recipe(
    cls: type[Method], tables: Mapping[str, Any], dataset: str | None, split: str | None, chosen: Mapping[str, Any]
) -> str | None:
    """The recipe that the file names for this setting and teacher, if it has one for the data set."""
    if "default_recipe" not in tables or split is None:
        return None
    inductive = any(word.startswith("ind") for word in split.split("-"))  # cpf-lcc-20-30-ind20, planetoid-ind
    teacher = chosen.get("teacher", _default(cls, tables, "teacher"))
    name: str = tables["default_recipe"]
    recipe = name.format(dataset=dataset, setting="ind" if inductive else "tran", teacher=teacher)
    own = tables.get("recipe", {}).get(recipe, {})
    return recipe if own and ("{dataset}" in name or dataset in own) else None


@cache
def _tables(module: str, name: str) -> dict[str, Any]:
    """``configs/<name>.toml`` next to the method's file; empty when there is none.

    A file's ``include`` names another one, in the same folder or in ``configs`` of a package above it (what several
    families share).
    """
    stem = name.replace("-", "_")
    path = _config_file(module.rpartition(".")[0], stem)
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{Path(str(path)).name}: not valid TOML ({error})") from None
    for old, new in OLD_KEYS.items():
        if old in tables:
            text = f"{stem}.toml: the key {old!r} is called {new!r} now, and will not be read in the next release"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            tables[new] = tables.pop(old)
    shared = tables.pop("include", None)
    return deep_merge(_tables(module, shared), tables) if shared else tables


def _config_file(package: str, stem: str) -> Traversable | None:
    """``configs/<stem>.toml`` in `package`, or in the nearest package above it; a module in no package has none."""
    while package:
        path = importlib.resources.files(package) / "configs" / f"{stem}.toml"
        if path.is_file():
            return path
        package = package.rpartition(".")[0]
    return None
