"""``list``: what is registered, read from source files and tables, without importing torch."""

from __future__ import annotations

import argparse
from typing import Any

from gkdbench.verbs.methods_table import citation, family_of, method_lines, sentence_of
from gkdbench.verbs.printing import say, show, terminal_width, wrapped


def list_names(args: argparse.Namespace) -> int:
    """``gkdbench list [methods|recipes|datasets|splits|backbones|metrics|suites]``."""
    if args.what == "methods" and not args.json:
        say("\n".join(method_lines(_methods(), terminal_width())))
        return 0
    if args.what == "datasets":
        rows = _datasets(args.data)
        if args.json:
            show(rows, as_json=True)
        else:
            say("\n".join(dataset_lines(rows)))
        return 0
    rows = {
        "methods": _methods,
        "recipes": _recipes,
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


def _datasets(data: str | None) -> list[dict[str, Any]]:
    from gkdbench.data.check import list_datasets

    return [
        {
            "dataset": row.info.name,
            "kind": row.info.kind,
            **{size: row.info.stats.get(size) for size in ("graphs", "nodes", "edges", "features", "classes")},
            "metric": row.info.metric,
            "several_labels": row.info.multi_label,
            "available": "yes" if row.available else "no",
            "splits": " ".join(row.info.splits),
            "licence": row.info.licence,
        }
        for row in list_datasets(data)
    ]


def dataset_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Sizes of every data set in one line ("?": not known without its files), splits and licence below it."""
    names = ("dataset", "kind", "nodes", "edges", "features", "classes")
    shown = [
        {
            name: "?" if row[name] is None else f"{row[name]:,}" if isinstance(row[name], int) else row[name]
            for name in names
        }
        for row in rows
    ]
    sizes = [max(len(name), *(len(row[name]) for row in shown)) for name in names]
    lines = []
    for facts, row in zip([dict(zip(names, names, strict=True)), *shown], [None, *rows], strict=True):
        cells = [
            facts[name].ljust(size) if name in names[:2] else facts[name].rjust(size)
            for name, size in zip(names, sizes, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
        if row is not None:
            graphs = f"{row['graphs']:,} graphs; " if row["graphs"] else ""
            there = "files there" if row["available"] == "yes" else "files absent"
            splits, licence = row["splits"] or "as it brings", row["licence"] or "unknown"
            text = f"    {graphs}{row['metric']}; {there}; splits: {splits}; licence: {licence}"
            lines += wrapped(text, terminal_width(), indent="    ")
    return lines


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
