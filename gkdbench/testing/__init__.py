"""Test cases for methods, ready to inherit: a method's own test is three lines.

    from gkdbench.testing import MethodCase

    class TestMyMethod(MethodCase):
        name = "my_method"

The cases are plain classes that pytest collects; the one module that imports pytest is `gkdbench.testing.plugin`, which
pytest loads by itself. `small_run` gives a view and a context to try a `fit` in an interactive session. Nothing is
loaded before it is used, so that importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gkdbench.testing.method_case import MethodCase
    from gkdbench.testing.small_runs import small_run

__all__ = ["MethodCase", "small_run"]

_HOME = {"MethodCase": "gkdbench.testing.method_case", "small_run": "gkdbench.testing.small_runs"}
"""Name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """Load on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
