"""``show NAME``: what is registered: a method, recipe, data set, split, backbone, metric or suite.

Facts of data sets come from the catalogue; no raw file is read for them.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from gkdbench.errors import UnknownName, UserError
from gkdbench.text_files import write_text
from gkdbench.verbs.methods_table import sentence_of
from gkdbench.verbs.printing import say, show

Facts = dict[str, Any]
SIZES = ("graphs", "nodes", "edges", "features", "classes")


def show_one(args: argparse.Namespace) -> int:
    """``gkdbench show NAME``; a name of several kinds is the first of them, and the others are named below."""
    if args.figure:
        return draw(args.name, args.figure)
    kinds = kinds_of(args.name)
    if not kinds:
        raise _unknown(args.name)
    kind = kinds[0]
    if kind in ("method", "recipe"):
        facts = method_facts(args)
    else:
        for option in ("dataset", "split", "recipe"):
            if getattr(args, option) is not None:
                raise UserError(f"--{option}: expected a method to go with, got the {kind} {args.name!r}; leave it out")
        facts = dataset_facts(args.name, args.data) if kind == "dataset" else _SHOWN[kind](args.name)
    if len(kinds) > 1 and kind != "recipe":
        facts["also"] = ", ".join(f"a {other} (`gkdbench list {other}s`)" for other in kinds[1:])
    if not args.json:
        facts |= {size: "unknown" for size in SIZES if size in facts and facts[size] is None}
    show(facts, as_json=args.json)
    return 0


def kinds_of(name: str) -> list[str]:
    """What `name` is the name of: "method", "recipe", "dataset", "split", "backbone", "metric", "suite"."""
    found = [kind for kind, names in _names().items() if name in names()]
    if "dataset" not in found and _is_dataset(name):
        found.append("dataset")
    return found


def _names() -> dict[str, Callable[[], Collection[str]]]:
    """Kind -> the names of that kind."""

    def suites() -> list[str]:
        from gkdbench.execute.suite import SMOKE, suite_files

        return [SMOKE, *suite_files()]

    def recipe_names() -> list[str]:
        from gkdbench.training.registry import METHODS
        from gkdbench.training.resolve import recipes

        return [recipe for method in METHODS.usable() for recipe in recipes(method)]

    from gkdbench.data.datasets import DATASETS
    from gkdbench.data.families import SPLIT_FAMILIES
    from gkdbench.metrics import METRICS
    from gkdbench.nn.backbones import BACKBONES
    from gkdbench.training.registry import METHODS

    return {
        "method": METHODS.names,
        "recipe": recipe_names,
        "dataset": DATASETS.names,
        "split": lambda: list(SPLIT_FAMILIES),
        "backbone": BACKBONES.names,
        "metric": METRICS.names,
        "suite": suites,
    }


def _is_dataset(name: str) -> bool:
    """Whether `name` is another spelling of a data set, or a built-in one with sizes."""
    from gkdbench.data.datasets import dataset_info

    try:
        dataset_info(name)
    except UnknownName:
        return False
    return True


def _unknown(name: str) -> UnknownName:
    """The error of a name that nothing has: of the kind of the nearest name."""
    owners = {known: kind for kind, names in reversed(_names().items()) for known in names()}
    near = difflib.get_close_matches(name, owners, n=1, cutoff=0.5)
    kind = owners[near[0]] if near else "method"
    kinds = "methods, recipes, datasets, splits, backbones, metrics, suites"
    hint = f"`gkdbench list {kind}s` prints all; there are lists of {kinds}"
    return UnknownName(kind, name, [known for known, owner in owners.items() if owner == kind], hint)


def method_facts(args: argparse.Namespace) -> Facts:
    """Of a method or one of its recipes: source, settings as resolved, what it requires, deviations."""
    import dataclasses
    import inspect

    from gkdbench.data.datasets import dataset_info
    from gkdbench.data.families import split_family
    from gkdbench.training.registry import METHODS
    from gkdbench.training.resolve import recipes, resolve

    if args.dataset is not None:
        args.dataset = dataset_info(args.dataset).name
    if args.split is not None:
        split_family(args.split)
    name, recipe = (args.name, args.recipe) if args.recipe else method_of(args.name)
    cls = METHODS.get(name)
    facts: Facts = {
        "method": cls.name,
        "paper": cls.paper,
        "year": cls.year,
        "arxiv": cls.arxiv,
        "repository": f"{cls.repository} (licence: {cls.licence})" if cls.repository else "",
        "revision": cls.revision,
        "kinds": "+".join(cls.kinds),
        "labels": _labels(cls.multi_label, cls.one_label),
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
    return facts


def dataset_facts(name: str, data: str | None = None) -> Facts:
    """Of a data set: sizes, metric, splits, licence, source and files, without reading any; "unknown" is said.

    A set of another package is called for them: nothing else says what it holds.
    """
    from gkdbench.data.builtin import loader
    from gkdbench.data.check import list_datasets
    from gkdbench.data.datasets import dataset_info, load_task
    from gkdbench.data.splits import supported_splits

    info = dataset_info(name)
    sizes, kind, metric, several = dict(info.stats), info.kind, info.metric, info.multi_label
    note = info.note
    if info.status == "third party":
        task = load_task(name)
        sizes = {"nodes": task.num_nodes, "edges": task.graph.num_edges, "features": task.num_features}
        sizes |= {"classes": task.num_classes} | ({} if task.graph_ptr is None else {"graphs": len(task.graph_ptr) - 1})
        kind, metric, several, note = task.kind, task.metric, task.multi_label, task.note
    if ":" in name:
        loader(name)  # refuses what its generator does not take
        note = f"{note}; sizes are those of {info.name}, not of {name}"
    files = next((row for row in list_datasets(data) if row.info.name == info.name), None)
    splits = supported_splits(name)
    return {
        "dataset": info.name,
        "kind": kind,
        **{size: sizes.get(size) for size in SIZES if size != "graphs" or kind == "graph" or size in sizes},
        "labels": "several a item, each 0 or 1" if several else "one class an item",
        "metric": metric,
        "splits": " ".join(splits),
        "read from": {split: f"the files of {other}" for split, other in info.views.items()},
        "licence": info.licence,
        "source": info.source,
        "files": _files(info.files, files),
        "also called": " ".join(info.aliases),
        "note": note,
    }


def _files(files: Collection[Any], row: Any) -> str:
    if not files:
        return "none needed"
    unverified = sum(not file.sha256 for file in files)
    there = f"{row.found} of {row.needed} there" if row is not None else ""
    return there + (f", {unverified} without a registered sha256" if unverified else "")


def split_facts(name: str) -> Facts:
    """Of a split family: its rule, what it reports, which data sets have it."""
    from gkdbench.data.check import list_datasets
    from gkdbench.data.families import split_family

    family = split_family(name)
    return {
        "split": family.id,
        "what": family.summary,
        "kinds": "+".join(family.kinds),
        "settings": "+".join(family.columns),
        "indices": "any: a new split for each" if family.indices is None else family.indices,
        "preprocessing": dict(family.preprocessing),
        "audit only": "validation is the test part: no score is a result" if family.audit_only else "",
        "datasets": " ".join(row.info.name for row in list_datasets() if name in row.info.splits),
    }


def backbone_facts(name: str) -> Facts:
    """Of a backbone: its paper and the values of its configuration."""
    import dataclasses
    import inspect

    from gkdbench.nn.backbones import BACKBONES

    cls: Any = BACKBONES.get(name)
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    default = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {
        "backbone": name,
        "paper": BACKBONES.facts(name).get("paper", ""),
        "owner": BACKBONES.entry(name).owner,
        "about": inspect.getdoc(cls),
        "settings": default,
    }


def metric_facts(name: str) -> Facts:
    """Of a metric: its definition."""
    import inspect

    from gkdbench.metrics import METRICS

    metric: Any = METRICS.get(name)
    return {"metric": name, "owner": METRICS.entry(name).owner, "about": inspect.getdoc(type(metric))}


def suite_facts(name: str) -> Facts:
    """Of a published suite: its grids, and its file."""
    from gkdbench.execute.suite import load_suite, suite_files

    suite = load_suite(name)
    grids = {
        str(number): f"{', '.join(grid.datasets)} on {', '.join(grid.splits)}: {_methods(grid)}"
        + (" (tier full)" if grid.tier == "full" else "")
        for number, grid in enumerate(suite.grids, start=1)
    }
    file = suite_files().get(name)
    return {
        "suite": suite.full_name,
        "what": suite.summary,
        "measures": suite.measures,
        "seeds": " ".join(map(str, suite.seeds)),
        "grids": grids,
        "file": "" if file is None else str(file),
        "then": f"`gkdbench plan {name}` says cells, hours and what is absent",
    }


def _methods(grid: Any) -> str:
    counts: dict[str, int] = {}
    for entry in grid.methods:
        counts[entry.method] = counts.get(entry.method, 0) + 1
    return ", ".join(method if count == 1 else f"{method} ({count})" for method, count in counts.items())


_SHOWN: dict[str, Callable[[str], Facts]] = {
    "split": split_facts,
    "backbone": backbone_facts,
    "metric": metric_facts,
    "suite": suite_facts,
}


def _labels(several: bool, why_one: str) -> str:
    """Which labels an item may have, and why not several."""
    if several:
        return "one class, or several with unknown ones left out"
    return f"one class an item: {why_one}" if why_one else "one class an item"


def _control(kind: str, when: Mapping[str, Collection[Any]]) -> str:
    """``no_transfer, at lam = 0.0``; "" for a method that is not a control."""
    at = " and ".join(f"{field} = {' or '.join(map(str, values))}" for field, values in when.items())
    return f"{kind}, at {at}" if kind and at else kind


def method_of(name: str) -> tuple[str, str | None]:
    """(method, recipe) of the name of either. A student's recipe and its teacher's share one: the student's is meant.

    Raises:
        UserError: a recipe of several students.
    """
    from gkdbench.training.registry import METHODS
    from gkdbench.training.resolve import recipes

    known = METHODS.names()
    owners = [] if name in known else [method for method in METHODS.usable() if name in recipes(method)]
    students = [owner for owner in owners if owner != "teacher"] or owners
    if len(students) > 1:
        raise UserError(
            f"expected a method, got {name!r}, a recipe of "
            f"{', '.join(students)}; try `gkdbench show METHOD --recipe {name}`"
        )
    return (students[0], name) if students else (name, None)


def draw(name: str, path: str) -> int:
    """``gkdbench show METHOD --figure FILE``: what the method declares as its figure (`Method.figure`)."""
    from gkdbench.report.layers import layer_figure
    from gkdbench.training.registry import METHODS

    figure = METHODS.get(name).figure()
    if figure is None:
        raise UserError(
            f"{name} has no figure: expected a method whose class declares `figure`, got one without; "
            f"`gkdbench show {name}` prints its settings"
        )
    say(write_text(Path(path), layer_figure(figure)))
    return 0
