"""One lazy registry for everything that is chosen by name.

An entry is a string ``"module:Attribute"``; nothing is imported until it is needed, so that
``gkdbench list`` runs without torch. Built-in entries come from the files of a package (one idea
per file), third-party ones from entry points.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from gkdbench.errors import UnknownName, UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a named thing lives, and who put it there."""

    name: str
    target: str  # "module:Attribute"
    owner: str  # the distribution or file it comes from

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except AttributeError:
            raise UserError(
                f"{self.name!r} of {self.owner} points to {self.target!r}, and {module} has no {attribute!r}; "
                f"correct the entry point"
            ) from None
        except (Exception, SystemExit) as error:  # a module of others may raise anything at its import
            raise UserError(
                f"{self.name!r} of {self.owner} cannot be imported from {self.target!r} "
                f"({type(error).__name__}: {str(error)[:200]}); mend or uninstall {self.owner}"
            ) from None


class Registry(Generic[T]):
    """Names of one kind, loaded on first use.

    Args:
        kind: what the names name ("method", "dataset", ...), used in messages.
        group: entry-point group of third-party packages, e.g. ``"gkdbench.methods"``.
        check: called with the loaded object; raises ``UserError`` when it is of the wrong type.
        builtin: gives the built-in entries, called once.
    """

    def __init__(
        self, kind: str, group: str, check: Callable[[str, Any], T], builtin: Callable[[], Iterator[Entry]]
    ) -> None:
        self.kind, self.group = kind, group
        self._check, self._builtin = check, builtin
        self._entries: dict[str, Entry] | None = None
        self._loaded: dict[str, T] = {}

    def entries(self) -> Mapping[str, Entry]:
        """All entries by name, sorted. Imports none of them."""
        if self._entries is None:
            self._entries = {}
            for entry in self._builtin():
                self.add(entry)
            for point in entry_points(group=self.group):
                owner = point.dist.name if point.dist else "an installed package"
                self.add(Entry(point.name, point.value, owner))
        return dict(sorted(self._entries.items()))

    def add(self, entry: Entry) -> None:
        """Register `entry`; a second owner of the same name is refused, naming both."""
        if self._entries is None:
            self.entries()
        assert self._entries is not None
        twin = self._entries.get(entry.name)
        if twin is not None and twin.target != entry.target:
            raise UserError(
                f"two {self.kind}s are called {entry.name!r}: {twin.target} of {twin.owner} and "
                f"{entry.target} of {entry.owner}; rename one of them"
            )
        self._entries[entry.name] = entry

    @contextmanager
    def lent(self, name: str, loaded: T, owner: str) -> Iterator[None]:
        """`loaded` under a name that nothing has, for as long as the context lasts.

        Raises:
            UserError: the name is taken.
        """
        taken = self.entries().get(name)
        if taken is not None:
            raise UserError(f"{self.kind} {name!r}: expected a name that is free, got that of {taken.owner}; rename it")
        assert self._entries is not None
        self._entries[name] = Entry(name, "", owner)
        self._loaded[name] = loaded
        try:
            yield
        finally:
            del self._entries[name], self._loaded[name]

    def names(self) -> list[str]:
        return list(self.entries())

    def entry(self, name: str) -> Entry:
        found = self.entries().get(name)
        if found is None:
            raise UnknownName(self.kind, name, self.names(), f"`gkdbench list {self.kind}s` prints all")
        return found

    def get(self, name: str) -> T:
        """The object called `name`; imported, checked, kept."""
        if name not in self._loaded:
            self._loaded[name] = self._check(name, self.entry(name).load())
        return self._loaded[name]

    def usable(self) -> dict[str, T]:
        """Every entry that can be loaded, by name; what others' packages break is left out (see `broken`)."""
        broken = self.broken()
        return {name: self.get(name) for name in self.names() if name not in broken}

    def broken(self) -> dict[str, str]:
        """Name -> why, of the entries of other packages that cannot be imported or are no such thing."""
        found: dict[str, str] = {}
        for name, entry in self.entries().items():
            if not entry.target.startswith("gkdbench."):
                try:
                    self.get(name)
                except UserError as error:
                    found[name] = str(error)
        return found

    def facts(self, name: str) -> dict[str, Any]:
        """The literal class attributes of an entry (paper, year, ...), read from its source, not imported."""
        module, _, attribute = self.entry(name).target.partition(":")
        return class_literals(module).get(attribute, {})

    def opening(self, name: str) -> str:
        """The first paragraph of the docstring of an entry's module, read from its source, not imported; "" without."""
        tree = _source(self.entry(name).target.partition(":")[0])
        return " ".join(((tree and ast.get_docstring(tree)) or "").split("\n\n")[0].split())


@cache
def _source(module: str) -> ast.Module | None:
    """The parsed source of `module`; None if it cannot be found, is not a Python file, or cannot be parsed."""
    spec = _find(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):  # ValueError: null bytes, or no UTF-8
        return None


@cache
def class_literals(module: str) -> dict[str, dict[str, Any]]:
    """Per class of a module: its docstring's first line (``"summary"``) and its literal attributes."""
    tree = _source(module)
    found: dict[str, dict[str, Any]] = {}
    for node in tree.body if tree else []:
        if not isinstance(node, ast.ClassDef):
            continue
        literals: dict[str, Any] = {"summary": (ast.get_docstring(node) or "").split("\n")[0]}
        for statement in node.body:
            target: ast.expr | None = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
            value = getattr(statement, "value", None)
            if isinstance(target, ast.Name) and value is not None:
                try:
                    literals[target.id] = ast.literal_eval(value)
                except ValueError:
                    continue  # computed values are shown by `gkdbench show`, which imports
        found[node.name] = literals
    return found


def _find(module: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of `module` without importing the module itself; its parents are imported, and those of others may
    raise anything."""
    try:
        return importlib.util.find_spec(module)
    except (Exception, SystemExit):
        return None


def files_of(package: str) -> Callable[[], Iterator[Entry]]:
    """Built-in entries: in each public file of `package`, classes with a literal ``name``."""

    def walk() -> Iterator[Entry]:
        spec = _find(package)
        if spec is None or not spec.submodule_search_locations:
            return
        root = Path(spec.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if any(part.startswith("_") for part in parts):
                continue
            module = ".".join((package, *parts))
            for attribute, literals in class_literals(module).items():
                if isinstance(literals.get("name"), str):
                    yield Entry(literals["name"], f"{module}:{attribute}", f"gkdbench ({path.name})")

    return walk
