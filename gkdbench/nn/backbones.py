"""The registry of backbones: the configurations in the files of this package, and third-party ones."""

from __future__ import annotations

from typing import Any

from gkdbench.errors import UserError
from gkdbench.registry import Registry, files_of


def _check(name: str, found: Any) -> type[Any]:
    from gkdbench.nn.model import Backbone  # torch is heavy: listing names must not import it

    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise UserError(f"backbone {name!r}: expected a subclass of gkdbench.nn.model.Backbone, got {found!r}")
    if getattr(found.hops, "__isabstractmethod__", False):
        raise UserError(
            f"backbone {name!r} declares no `hops`: expected how many edges away a prediction reads, got nothing; "
            f"add a property that returns the number of message-passing layers (0: it reads features only), or a field "
            f"`hops` with a default"
        )
    return found


BACKBONES: Registry[type[Any]] = Registry("backbone", "gkdbench.backbones", _check, files_of("gkdbench.nn"))
