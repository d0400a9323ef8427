"""Methods in families, one file a method: how teachers, students and peers are trained.

A public file of a family holds one frozen dataclass with a literal ``name``; the registry finds it by that. What the
methods of one family share is in its files that begin with an underscore, what several families share in
`gkdbench.training`; no family imports another.
"""

from __future__ import annotations

from typing import Any

from gkdbench.training.registry import METHODS

__all__ = ["METHODS", "Method", "Requirement"]


def __getattr__(name: str) -> Any:
    """``from gkdbench.methods import Method`` without loading torch for those who only list."""
    if name in ("Method", "Requirement"):
        from gkdbench.training import method

        return getattr(method, name)
    raise AttributeError(name)
