"""Every name that the code of this checkout defines, and whether a name that a document writes is one of them.

Sources are parsed, not imported. A word is known when it is defined anywhere: module, class, function, parameter,
attribute, variable, a string constant, or a key or text of a TOML or JSON file. A dotted name is followed: from
``gkdbench`` or ``gkdkernels`` through modules and classes, from a class through its members and bases.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib.util
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from support.checkout import ROOT

PACKAGES = {"gkdbench": ROOT / "gkdbench", "gkdkernels": ROOT / "kernels/gkdkernels"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class CodeNames:
    """Names by how they are defined.

    Args:
        modules: dotted module -> names at its top level. classes: class -> its definitions.
        words: every defined name. attributes: what may follow a point. strings: string constants without a space.
    """

    modules: dict[str, set[str]] = field(default_factory=dict)
    classes: dict[str, list[ast.ClassDef]] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)

    def members(self, name: str) -> set[str]:
        """Members of a class, those of its bases included; bases from elsewhere add nothing."""
        found: set[str] = set()
        for node in self.classes.get(name, ()):
            found.update(inner for statement in node.body for inner in _top_level(statement))
            found.update(_self_attributes(node))
            found.update(*(self.members(base) for base in {_last(base) for base in node.bases} - {name}))
        return found

    def knows(self, name: str) -> bool:
        """Whether a word or a dotted name leads to something that is defined."""
        first, *rest = name.split(".")
        if first in PACKAGES:
            return self._in_package(name.split("."))
        if not rest:
            return first in self.words or first in self.strings
        if name in self.strings or _importable(first):
            return True
        if first in self.classes and first[0].isupper():
            return rest[0] in self.members(first) and all(part in self.attributes for part in rest[1:])
        known = first in self.words or first in self.strings
        return known and all(part in self.attributes or part in self.strings for part in rest)

    def _in_package(self, parts: list[str]) -> bool:
        for length in range(len(parts), 0, -1):
            module = ".".join(parts[:length])
            if module in self.modules:
                rest = parts[length:]
                if not rest:
                    return True
                inside = rest[0] in self.modules[module]
                return inside and all(part in self.members(rest[0]) | self.attributes for part in rest[1:])
        return False


def python_files() -> Iterator[Path]:
    """Sources of the two packages and the suites."""
    for folder in (*PACKAGES.values(), ROOT / "suites"):
        yield from sorted(path for path in folder.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def code_names() -> CodeNames:
    """The names of this checkout."""
    names = CodeNames(words=set(dir(builtins)))
    for path in python_files():
        for package, folder in PACKAGES.items():
            if path.is_relative_to(folder):
                module = ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
                names.modules[module] = {name for node in tree(path).body for name in _top_level(node)}
                names.words.update(module.split("."))
                names.attributes.add(module.rpartition(".")[2])
        names.words.add(path.stem)
        add_names(names, tree(path))
    for module in list(names.modules):
        parent, _, last = module.rpartition(".")
        names.modules.get(parent, set()).add(last)
    for path in [*ROOT.glob("suites/*.toml"), *ROOT.glob("gkdbench/**/*.toml"), ROOT / "pyproject.toml"]:
        _add_keys(names, tomllib.loads(path.read_text(encoding="utf-8")))
    for path in [*ROOT.glob("gkdbench/**/*.json")]:
        _add_keys(names, json.loads(path.read_text(encoding="utf-8")))
    return names


def add_names(names: CodeNames, module: ast.Module) -> None:
    """Add what `module` defines, at any depth."""
    docstrings = set()
    for node in ast.walk(module):
        if _has_docstring(node):
            docstrings.add(id(node.body[0].value))  # type: ignore[attr-defined]
        if isinstance(node, ast.ClassDef):
            names.classes.setdefault(node.name, []).append(node)
            names.words.add(node.name)
            names.attributes.update(name for inner in node.body for name in _top_level(inner))
        elif isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store):
                names.attributes.add(node.attr)
                names.words.add(node.attr)
        elif isinstance(node, Function):
            names.words.add(node.name)
            names.attributes.add(node.name)
        elif isinstance(node, ast.arg | ast.keyword):
            names.words.add(node.arg or "")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.words.add(node.id)
        elif isinstance(node, ast.alias):
            names.words.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Constant) and id(node) not in docstrings and isinstance(node.value, str):
            names.strings.add(node.value)
    for node in module.body:
        names.attributes.update(_top_level(node))


def _has_docstring(node: ast.AST) -> bool:
    body = getattr(node, "body", None)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and bool(body) and isinstance(body[0], ast.Expr)


def _top_level(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for inner in (inner for target in targets for inner in ast.walk(target)):
            if isinstance(inner, ast.Name):
                yield inner.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield (alias.asname or alias.name).split(".")[0]
    elif isinstance(node, ast.If | ast.Try):
        for inner_statement in [*node.body, *node.orelse]:
            yield from _top_level(inner_statement)


def _self_attributes(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        stored = isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
        if stored and isinstance(inner.value, ast.Name) and inner.value.id == "self":
            yield inner.attr
        elif isinstance(inner, ast.Call) and _last(inner.func) in ("register_buffer", "register_parameter"):
            yield from (arg.value for arg in inner.args[:1] if isinstance(arg, ast.Constant))


def _last(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _add_keys(names: CodeNames, value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            names.strings.add(key)
            _add_keys(names, inner)
    elif isinstance(value, list):
        for inner in value:
            _add_keys(names, inner)
    elif isinstance(value, str):
        names.strings.add(value)


@cache
def _importable(name: str) -> bool:
    """Whether another distribution's module has this name; optional ones count although they may be absent."""
    optional = {"torch_geometric", "torch_scatter", "numba", "pandas", "ogb", "rdkit"}
    return name in optional or (name not in PACKAGES and importlib.util.find_spec(name) is not None)


@cache
def verbs() -> dict[str, frozenset[str]]:
    """Verb of the command line -> its options and, for verbs with verbs of their own, those."""
    from gkdbench.cli import parser

    return {name: frozenset(_words(sub)) for name, sub in _subparsers(parser()).items()}


def _subparsers(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: sub for action in actions for name, sub in action.choices.items()}


def _words(of: argparse.ArgumentParser) -> Iterator[str]:
    yield from of._option_string_actions
    for name, sub in _subparsers(of).items():
        yield name
        yield from _words(sub)
