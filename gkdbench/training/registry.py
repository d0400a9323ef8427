"""The registry of methods. Importing it imports no method and no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.registry import Registry, files_of

if TYPE_CHECKING:
    from gkdbench.training.method import Method


def _check(name: str, found: Any) -> type[Method]:
    from gkdbench.training.method import Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(f"method {name!r} wants a subclass of gkdbench.training.Method, got {found!r}")
    if found.name != name:
        raise UserError(f"method {name!r} is registered under another name than its own, {found.name!r}")
    return found


METHODS: Registry[type[Method]] = Registry("method", "gkdbench.methods", _check, files_of("gkdbench.methods"))
"""Methods by name: the public files of the families in `gkdbench.methods`, and third parties' entry points."""
