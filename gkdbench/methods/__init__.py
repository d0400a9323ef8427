"""One file per method: how teachers, students and peers are trained.

A public file here holds one frozen dataclass with a literal ``name``; the registry finds it by that. Steps that
several methods share lie in files that begin with an underscore; methods never import each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.registry import Registry, files_of

if TYPE_CHECKING:
    from gkdbench.methods._base import Method


def _check(name: str, found: Any) -> type[Method]:
    from gkdbench.methods._base import Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(f"method {name!r} wants a subclass of gkdbench.methods.Method, got {found!r}")
    if found.name != name:
        raise UserError(f"method {name!r} is registered under another name than its own, {found.name!r}")
    return found


METHODS: Registry[type[Method]] = Registry("method", "gkdbench.methods", _check, files_of("gkdbench.methods"))
"""Methods by name; importing this imports no method and no torch."""


def __getattr__(name: str) -> Any:
    """``from gkdbench.methods import Method`` without loading torch for those who only list."""
    if name in ("Method", "Requirement"):
        from gkdbench.methods import _base

        return getattr(_base, name)
    raise AttributeError(name)
