"""A suite without a file: some methods on one data set, as ``gkdbench run --method`` and `gkdbench.run` take it."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gkdbench.data.datasets import dataset_info, load_task
from gkdbench.data.splits import first_split
from gkdbench.errors import UserError
from gkdbench.execute.suite import Suite, load_suite, parse_suite
from gkdbench.training.resolve import deep_merge

SEEDS = "0:3"
"""Default training seeds."""

Methods = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""``"glnn"``, ``{"method": "glnn", "lr": 0.01}``, or several of these."""


def suite_of(
    suite: str | Path | Suite | None = None,
    *,
    methods: Methods | None = None,
    dataset: str | None = None,
    split: str | None = None,
    seeds: str | int | Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Suite:
    """The suite that is named, or the one that `methods` and `dataset` describe.

    Args:
        suite: as `load_suite` takes it; excludes all other arguments.
        methods: names, or mappings of a name and hyper-parameters; see `Methods`.
        dataset: name of a data set.
        split: split id; None: `default_split`.
        seeds: ``"0:3"``, one seed or several; None: `SEEDS`.
        overrides: hyper-parameters of all methods; a method's own come first.

    Raises:
        UserError: both a suite and methods, neither, or anything that the parser of suite files refuses.
    """
    described = {"methods": methods, "dataset": dataset, "split": split, "seeds": seeds, "overrides": overrides or None}
    given = [name for name, value in described.items() if value is not None]
    if suite is not None and given:
        raise UserError(
            f"expected a suite, or methods and a data set; got the suite {_name_of(suite)!r} and {', '.join(given)}; "
            f"a suite states its own methods, data sets, splits, seeds and hyper-parameters"
        )
    if suite is not None:
        return load_suite(suite)
    if not methods or dataset is None:
        missing = [name for name in ("methods", "dataset") if not described[name]]
        raise UserError(
            f"expected a suite, or methods and a data set; got no {' and no '.join(missing)}; try "
            f"`gkdbench run smoke`, or `gkdbench run --method glnn --dataset cora`"
        )
    entries = [_entry(method, overrides or {}) for method in _listed(methods)]
    chosen, training = split or default_split(dataset), _seeds(seeds)
    names = dict.fromkeys(entry["method"] for entry in entries)
    document = {
        "suite": {"name": f"{'+'.join(names)} on {dataset}", "seeds": training},
        "grid": [{"datasets": [dataset], "splits": [chosen], "methods": entries}],
    }
    return parse_suite(document, where="run", asked=_as_options(entries, dataset, chosen, training))


def default_split(dataset: str) -> str:
    """The first split id of a data set, in the order of its catalogue entry: the one that most papers report.

    A set of another package is asked: the split that came with it, else 80 / 10 / 10 percent.

    Raises:
        UnknownName: no such data set.
    """
    info = dataset_info(dataset)
    return info.splits[0] if info.splits else first_split(load_task(dataset))


def hyper_parameter(word: str) -> tuple[list[str], Any]:
    """``"model.hidden=64"`` -> ``(["model", "hidden"], 64)``; values are TOML's, and a bare word is a string.

    Raises:
        UserError: no ``=``, an empty name, or a value that begins like one of TOML's and is none.
    """
    key, equals, text = word.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"a hyper-parameter: expected key=value, got {word!r}; try lr=0.01")
    return path, _value(key, text.strip())


def _value(key: str, text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        document = {}
    if set(document) == {"value"}:
        return document["value"]
    if re.fullmatch(r"[^\s\"'\[\]{},=]+", text):
        return text
    raise UserError(f"{key}: expected a number, true, false, a word or a TOML value such as [1, 2], got {text!r}")


def hyper_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Hyper-parameters of ``key=value`` words; ``model.hidden=64`` sets a key of the table ``model``.

    Raises:
        UserError: a word that `hyper_parameter` refuses, or a key that is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        path, value = hyper_parameter(word)
        table = found
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UserError(f"{word}: {part!r} has a value already; give a table's keys or its value, not both")
        if path[-1] in table:
            raise UserError(f"{'.'.join(path)}: expected one value, got {word!r} as a second; give it once")
        table[path[-1]] = value
    return found


def method_with_hyper_parameters(text: str) -> dict[str, Any]:
    """``"glnn lr=0.01"`` -> an entry of a suite; ``"glnn"`` alone has no hyper-parameters of its own.

    Raises:
        UserError: no name, or a word that is no ``key=value``.
    """
    name, *words = shlex.split(text) or [""]
    if not name or "=" in name:
        raise UserError(f"--method expects a method's name, then its own key=value words if any; got {text!r}")
    return {"method": name, "overrides": hyper_parameters(words)}


def _listed(methods: Methods) -> list[str | Mapping[str, Any]]:
    return [methods] if isinstance(methods, (str, Mapping)) else list(methods)


def _entry(method: str | Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A suite file's entry of one method, its hyper-parameters in ``overrides``."""
    if isinstance(method, str):
        return {"method": method, "overrides": dict(overrides)}
    if not isinstance(method, Mapping) or not isinstance(method.get("method"), str):
        raise UserError(f'methods: expected a name, or {{"method": name, hyper-parameter: value, ...}}, got {method!r}')
    own = {key: value for key, value in method.items() if key not in ("method", "overrides")}
    return {
        "method": method["method"],
        "overrides": deep_merge(deep_merge(overrides, method.get("overrides", {})), own),
    }


def _seeds(seeds: str | int | Sequence[int] | None) -> str | list[int]:
    """As suite files have them; ``"1,4"`` and ``"7"`` of a command line are lists."""
    if seeds is None:
        return SEEDS
    if isinstance(seeds, str):
        listed = re.fullmatch(r"\d+(,\d+)*", seeds)
        return [int(part) for part in seeds.split(",")] if listed else seeds
    return [seeds] if isinstance(seeds, int) else list(seeds)


def _as_options(entries: Sequence[Mapping[str, Any]], dataset: str, split: str, seeds: str | Sequence[int]) -> str:
    """The command-line options that describe the same suite: what records name as their command."""
    words: list[str] = []
    for entry in entries:
        own = [f"{key}={_text(value)}" for key, value in _flat(entry["overrides"])]
        words += ["--method", shlex.quote(shlex.join([entry["method"], *own]) if own else entry["method"])]
    given = seeds if isinstance(seeds, str) else ",".join(str(seed) for seed in seeds)
    return " ".join([*words, "--dataset", shlex.quote(dataset), "--split", shlex.quote(split), "--seeds", given])


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


def _text(value: Any) -> str:
    """A value as `hyper_parameter` reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        bare = _value("", value) if re.fullmatch(r"[\w.:/+-]+", value) else None
        return value if bare == value else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text_in_list(item) for item in value) + "]"
    return str(value)


def _text_in_list(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else _text(value)


def _name_of(suite: str | Path | Suite) -> str:
    return suite.full_name if isinstance(suite, Suite) else str(suite)
