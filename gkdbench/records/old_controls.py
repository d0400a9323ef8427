"""Which records are controls, of those written before records held it: by the names and settings of their time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gkdbench.controls import Control, holds

Condition = tuple[Control, Mapping[str, tuple[Any, ...]]]

BY_METHOD: Mapping[str, Condition] = {
    "mlp_params": ("matched_size", {}),
    "mlp_macs": ("matched_size", {}),
    "ensemble": ("several_models", {}),
    "label_smoothing": ("regularised", {}),
    "confidence_penalty": ("regularised", {}),
    "kd": ("no_transfer", {"alpha": (0.0,)}),
    "dml": ("no_transfer", {"lam": (0.0,)}),
    "alignahead": ("no_transfer", {"direction": ("none",)}),
    "lsp": ("no_transfer", {"lam": (0.0,)}),
    "kdcl": ("no_transfer", {"lam": (0.0,)}),
    "lower_ce": ("no_transfer", {"lam": (0.0,)}),
    "one": ("no_transfer", {"lam": (0.0,)}),
    "aekd": ("no_transfer", {"gamma": (0.0,)}),
    "gnnsd": ("no_transfer", {"alpha": (0.0,), "beta": (0.0,)}),
    **{name: ("no_transfer", {"alpha": (0.0,), "beta": (0.0,)}) for name in ("at", "fitnet", "gcrd", "gsp")},
}
OF_ANY_METHOD: Condition = ("fixed_routing", {"model.routing": ("random", "random_each", "frozen")})


def old_control(method: str, config: Mapping[str, Any]) -> Control | None:
    """The kind of control that an old record of `method` with `config` is; None: it is none.

    New methods are not entered here: they declare it (`gkdbench.training.method.Method.control`), and their records
    hold it.
    """
    conditions = [BY_METHOD[method]] if method in BY_METHOD else []
    return next((kind for kind, when in [*conditions, OF_ANY_METHOD] if holds(when, config)), None)
