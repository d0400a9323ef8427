"""Module paths of version 0.1 that have moved: they import for one release, with a warning that names the new place.

`MOVED` is the one table, an import hook the one mechanism. An old path gives a view of the new module, so that setting
an attribute there (as a test does to replace a function) changes the module that the package uses.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a module went.

    Args:
        to: the module that holds its names now.
        names: old name -> "module:name", for names that were renamed or went elsewhere.
    """

    to: str
    names: Mapping[str, str] = field(default_factory=dict)


_T = "gkdbench.training"
_RANGES = {
    "Rate": f"{_T}.types:PositiveFloat",
    "Weight": f"{_T}.types:NonNegativeFloat",
    "Share": f"{_T}.types:UnitFloat",
    "Count": f"{_T}.types:PositiveInt",
}
MOVED: dict[str, Moved] = {}
"""Old module -> where it went."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `MOVED`, after everything that exists was looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _View(spec.name, MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        moved = MOVED[module.__name__]
        importlib.import_module(moved.to)
        warnings.warn(
            f"{module.__name__} has moved to {moved.to} and will not import in the next release",
            DeprecationWarning,
            stacklevel=2,
        )


class _View(ModuleType):
    """A module under its old path: every name is looked up, set and deleted where it is now."""

    def __init__(self, name: str, moved: Moved) -> None:
        super().__init__(name, f"Moved to {moved.to}.")
        self.__dict__["_moved"] = moved

    def _home(self, name: str) -> tuple[ModuleType, str]:
        moved: Moved = self.__dict__["_moved"]
        module, _, now = moved.names.get(name, f"{moved.to}:{name}").partition(":")
        return importlib.import_module(module), now

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        module, now = self._home(name)
        return getattr(module, now)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(*self._home(name), value)

    def __delattr__(self, name: str) -> None:
        delattr(*self._home(name))

    def __dir__(self) -> list[str]:
        moved: Moved = self.__dict__["_moved"]
        return sorted({*dir(importlib.import_module(moved.to)), *moved.names})


def install() -> None:
    """Let the old paths import. Called once, when `gkdbench` is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
