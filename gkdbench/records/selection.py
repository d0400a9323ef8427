"""Rules of selection by name: which epoch of a run, which of several models (docs/protocol.md, section 4.1)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gkdbench.errors import UserError

Ties = Literal["loss", "later", "first"]
"""Which of two epochs with equal validation scores wins: the one with the smaller validation loss, and of equal ones
the later; the later; the first."""


@dataclass(frozen=True, slots=True)
class SelectionRule:
    """The best validation score wins, and `ties` decides between equal ones.

    Args:
        ties: see `Ties`; published rows have ``"loss"``, forms of a release follow that release.
        start: first epoch that may be selected; patience runs from it. For studies of the rule.
        window: scores and losses are means over the last `window` epochs that may be selected. For studies.
    """

    ties: Ties = "loss"
    start: int = 1
    window: int = 1

    @classmethod
    def parse(cls, text: str) -> SelectionRule:
        """The rule that `str` of it gives: ``"loss"``, ``"later"``, ``"loss, start 20"``, ``"first, window 5"``.

        Raises:
            UserError: no such rule.
        """
        found = re.fullmatch(r"(loss|later|first)(?:, start ([1-9]\d*))?(?:, window ([1-9]\d*))?", text)
        if found is None:
            raise UserError(
                f"selection: expected loss, later or first, then ', start N' or ', window N' if wanted, got {text!r}; "
                "published suites leave it out"
            )
        return cls(found[1], int(found[2] or 1), int(found[3] or 1))  # type: ignore[arg-type]  # matched

    def __str__(self) -> str:
        parts = [self.ties, *(f"{name} {n}" for name, n in (("start", self.start), ("window", self.window)) if n > 1)]
        return ", ".join(parts)


PROTOCOL_RULE = SelectionRule()


def best_of(scores: Iterable[tuple[float, float | None]]) -> int:
    """Which of several models is best on validation: the highest score, of equal ones the smallest loss, of equal ones
    the first. Models have no order in time, so that none is later than another.

    Args:
        scores: (validation score, validation loss or None) of each; without losses (protocol 1) equal scores leave
            the first.

    Raises:
        ValueError: no model.
    """
    ranked = list(scores)
    return min(range(len(ranked)), key=lambda i: (-ranked[i][0], math.inf if ranked[i][1] is None else ranked[i][1]))
