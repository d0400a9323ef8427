"""``list`` and ``show``: what is registered, read from source files and tables, without importing torch for a list."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from gkdbench.verbs.methods_table import citation, family_of, method_lines, sentence_of
from gkdbench.verbs.printing import say, show


def list_names(args: argparse.Namespace) -> int:
    """``gkdbench list [methods|recipes|datasets|splits|backbones|metrics|suites]``."""
    if args.what == "methods" and not args.json:
        say("\n".join(method_lines(_methods())))
        return 0
    rows = {
        "methods": _methods,
        "recipes": _recipes,
        "datasets": _datasets,
        "splits": _splits,
        "backbones": _backbones,
        "metrics": _metrics,
        "suites": _suites,
    }[args.what]()
    show(rows, as_json=args.json)
    return 0


def _methods() -> list[dict[str, Any]]:
    from gkdbench.training.registry import METHODS

    return [
        {
            "method": name,
            "kinds": "+".join(facts.get("kinds", ("node",))),
            "variants": "+".join(facts.get("variants", ("corrected",))),
            "needs": facts.get("needs", "features"),
            "owner": entry.owner,
            "what": facts.get("summary", ""),
            "family": family_of(entry.target, entry.owner),
            "sentence": sentence_of(name, METHODS.opening(name)),
            "cited": citation(facts.get("paper", ""), facts.get("year")),
        }
        for name, entry in METHODS.entries().items()
        for facts in [METHODS.facts(name)]
    ]


def _recipes() -> list[dict[str, Any]]:
    from gkdbench.training.registry import METHODS
    from gkdbench.training.resolve import recipes

    return [{"recipe": recipe, "method": name} for name in METHODS.usable() for recipe in recipes(name)]


def _datasets() -> list[dict[str, Any]]:
    from gkdbench.data.check import list_datasets

    return [
        {
            "dataset": row.info.name,
            "kind": row.info.kind,
            "available": "yes" if row.available else "no",
            "splits": " ".join(row.info.splits),
        }
        for row in list_datasets()
    ]


def _splits() -> list[dict[str, Any]]:
    from gkdbench.data.families import SPLIT_FAMILIES

    return [
        {"split": family.id, "settings": "+".join(family.columns), "what": family.summary}
        for family in SPLIT_FAMILIES.values()
    ]


def _backbones() -> list[dict[str, Any]]:
    from gkdbench.nn.backbones import BACKBONES

    return [
        {"backbone": name, "paper": BACKBONES.facts(name).get("paper", ""), "owner": entry.owner}
        for name, entry in BACKBONES.entries().items()
    ]


def _metrics() -> list[dict[str, Any]]:
    from gkdbench.metrics import METRICS

    return [{"metric": name, "owner": entry.owner} for name, entry in METRICS.entries().items()]


def _suites() -> list[dict[str, Any]]:
    from gkdbench.execute.smoke import SUMMARY
    from gkdbench.execute.suite import SMOKE, load_suite, suite_files

    published = [{"suite": name, "what": load_suite(name).summary} for name in suite_files()]
    return [{"suite": SMOKE, "what": SUMMARY}, *published]


def show_one(args: argparse.Namespace) -> int:
    """``gkdbench show METHOD`` (or ``show RECIPE``): source, fields with their meaning, recipes, deviations."""
    import dataclasses
    import inspect

    from gkdbench.training.registry import METHODS
    from gkdbench.training.resolve import recipes, resolve

    if args.dataset is not None:
        from gkdbench.data.datasets import dataset_info

        args.dataset = dataset_info(args.dataset).name
    if args.split is not None:
        from gkdbench.data.families import split_family

        split_family(args.split)
    if args.figure:
        return draw(args.name, args.figure)
    name, recipe = (args.name, args.recipe) if args.recipe else _named(args.name)
    cls = METHODS.get(name)
    facts: dict[str, Any] = {
        "method": cls.name,
        "paper": cls.paper,
        "year": cls.year,
        "arxiv": cls.arxiv,
        "repository": f"{cls.repository} (licence: {cls.licence})" if cls.repository else "",
        "revision": cls.revision,
        "kinds": "+".join(cls.kinds),
        "needs at inference": cls.needs,
        "variants": "+".join(cls.variants),
        "control": _control(cls.control, cls.control_when),
        "recipes": " ".join(recipes(name)),
        "sentence": sentence_of(name, METHODS.opening(name)),
        "about": inspect.getdoc(cls),
    }
    method = resolve(name, {}, dataset=args.dataset, split=args.split, recipe=recipe)
    facts["settings"] = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    facts["requires"] = {role: f"{r.method} {dict(r.overrides) or r.recipe}" for role, r in method.requires().items()}
    facts["deviations"] = list(cls.deviations)
    if args.json:
        show(facts, as_json=True)
        return 0
    for key, value in facts.items():
        if not value:
            continue
        if isinstance(value, dict):
            say(f"{key}:")
            for name, item in value.items():
                say(f"  {name} = {item!r}" if key == "settings" else f"  {name}: {item}")
        elif isinstance(value, list):
            say(f"{key}:")
            for item in value:
                say(f"  - {item}")
        else:
            say(f"{key}: {value}")
    return 0


def _control(kind: str, when: Mapping[str, Collection[Any]]) -> str:
    """``no_transfer, at lam = 0.0``; "" for a method that is not a control."""
    at = " and ".join(f"{field} = {' or '.join(map(str, values))}" for field, values in when.items())
    return f"{kind}, at {at}" if kind and at else kind


def _named(name: str) -> tuple[str, str | None]:
    """(method, recipe) of the name of either. A student's recipe and its teacher's share one: the student's is meant.

    Raises:
        UserError: a recipe of several students.
    """
    from gkdbench.errors import UserError
    from gkdbench.training.registry import METHODS

    known = METHODS.names()
    owners = [] if name in known else [row["method"] for row in _recipes() if row["recipe"] == name]
    students = [owner for owner in owners if owner != "teacher"] or owners
    if len(students) > 1:
        raise UserError(
            f"expected a method, got {name!r}, a recipe of "
            f"{', '.join(students)}; try `gkdbench show METHOD --recipe {name}`"
        )
    return (students[0], name) if students else (name, None)


def draw(name: str, path: str) -> int:
    """``gkdbench show METHOD --figure FILE``: what the method declares as its figure (`Method.figure`)."""
    from pathlib import Path

    from gkdbench.errors import UserError
    from gkdbench.report.layers import layer_figure
    from gkdbench.training.registry import METHODS

    figure = METHODS.get(name).figure()
    if figure is None:
        raise UserError(
            f"{name} has no figure: expected a method whose class declares `figure`, got one without; "
            f"`gkdbench show {name}` prints its settings"
        )
    Path(path).write_text(layer_figure(figure), encoding="utf-8")
    say(Path(path).resolve())
    return 0
