"""The registry of methods. Importing it imports no method and no torch."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gkdbench.controls import CONTROLS
from gkdbench.errors import UnknownName, UserError
from gkdbench.registry import Registry, files_of

if TYPE_CHECKING:
    from gkdbench.training.method import Method


def _check(name: str, found: Any) -> type[Method]:
    from gkdbench.training.method import Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UserError(f"method {name!r}: expected a subclass of gkdbench.training.Method, got {found!r}")
    if found.name != name:
        raise UserError(f"method {name!r}: expected to be registered under its own name, got {found.name!r}")
    _check_control(name, found)
    return found


def _check_control(name: str, found: type[Method]) -> None:
    """Refuse a kind of control that does not exist, and a condition on a field that the method does not have."""
    kinds = ", ".join(CONTROLS)
    if found.control not in ("", *CONTROLS):
        raise UserError(
            f"control kind {found.control!r} of method {name!r}: expected one of {kinds}, or '' for a method that is "
            f"no control"
        )
    if found.control_when and not found.control:
        raise UserError(
            f"method {name!r} has `control_when` and no kind of control: expected `control` to be one of {kinds}, "
            f"got ''"
        )
    known = {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
    for field in found.control_when:
        if field.partition(".")[0] not in known:
            raise UnknownName(f"field in control_when of method {name!r}", field, known)


METHODS: Registry[type[Method]] = Registry("method", "gkdbench.methods", _check, files_of("gkdbench.methods"))
"""Methods by name: the public files of the families in `gkdbench.methods`, and third parties' entry points."""
