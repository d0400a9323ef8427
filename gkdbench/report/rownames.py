"""The name of a row across data sets: the method and its options, without the sizes that its settings have there."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = r"\d+x\d+(?: \(\d+ heads\))?"
_MODEL = rf"(?:\d+ x )?(?:[A-Za-z-]+ )?{_SIZE}"
_SIZES = re.compile(rf"^(?:{_MODEL}(?: (?:\+|to) {_MODEL})*|\d+ of \d+ experts|\d+ hops)$")
_INSIDE = re.compile(rf" {_SIZE}")
MAIN = ("single", "mean of peers")
"""The aggregates that stand for a method; the others fold out under it."""


@dataclass(frozen=True, slots=True)
class RowName:
    """A label taken apart.

    Attributes:
        base: the method, as it is called without sizes. options: what sets it apart from the plain method.
        sizes: of its model. aggregate: of several peers.
    """

    base: str
    options: tuple[str, ...]
    sizes: str
    aggregate: str

    @property
    def identity(self) -> tuple[str, ...]:
        """What rows of one method have in common on all data sets."""
        return (self.base, *self.options, self.aggregate)

    @property
    def plain(self) -> str:
        """The name without sizes."""
        peers = () if self.aggregate == "single" else (self.aggregate,)
        return ", ".join([self.base, *self.options, *peers])


def row_name(label: str, aggregate: str) -> RowName:
    """The parts of a record's label, as methods write them: ``RbM, 3 of 4 experts, 3x512, frozen memories``."""
    first, *rest = _parts(label)
    sizes = [part for part in rest if _SIZES.match(part)]
    inside = _INSIDE.findall(first)
    base = _INSIDE.sub("", first)
    options = tuple(part for part in rest if not _SIZES.match(part))
    return RowName(base, options, ", ".join([*(text.strip() for text in inside), *sizes]), aggregate)


def _parts(label: str) -> list[str]:
    """`label` cut at its commas, but not within parentheses."""
    return re.split(r", (?![^(]*\))", label)
