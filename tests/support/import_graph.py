"""Which module of the two packages imports which, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from support.checkout import ROOT

ROOTS = {"gkdbench": ROOT / "gkdbench", "gkdkernels": ROOT / "kernels" / "gkdkernels"}

Graph = Mapping[str, frozenset[str]]
"""Module -> the modules that it imports, at any depth; what only a type checker imports does not count."""


@cache
def import_graph() -> Graph:
    """The graph of both packages."""
    return graph_of({name: path.read_text(encoding="utf-8") for name, path in module_files()})


def module_files() -> Iterator[tuple[str, Path]]:
    """Every module with its file."""
    for folder in ROOTS.values():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def graph_of(sources: Mapping[str, str]) -> Graph:
    """The graph of modules whose source is given; imports of other modules are left out."""
    found = {}
    for name, source in sources.items():
        targets = {_module(words, sources) for words in _imports(ast.parse(source))}
        found[name] = frozenset(targets - {None, name})
    return found  # type: ignore[return-value]


def _imports(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """What every import may mean, the nearer first: ``from a import b`` is the module a.b or the name b of a."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name,) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield from ((f"{child.module}.{alias.name}", child.module) for alias in child.names)
        else:
            yield from _imports(child)


def _module(words: tuple[str, ...], known: Mapping[str, str]) -> str | None:
    return next((word for word in words if word in known), None)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others, sorted."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph if name in reached[name]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen
