"""Types of command-line options: a value outside its range is refused, in one way for every verb."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection

from gkdbench.errors import UserError, nearest


def whole(least: int, most: int) -> Callable[[str], int]:
    """An integer from `least` to `most`, both allowed."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most:,}, got {text[:60]!r}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """A time above zero, at most a week."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 7 * 86400:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, at most a week, got {text[:60]!r}")
    return value


def folder(text: str) -> str:
    """A path that is not empty: an empty one would mean the current folder by accident."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder, got an empty name; write . for the current folder")
    return text


def chosen_values(text: str, fields: Collection[str], option: str) -> dict[str, str]:
    """``"method=glnn|kd,seed=3"`` -> ``{"method": "glnn|kd", "seed": "3"}``; ``|`` separates alternatives.

    Args:
        fields: names that may stand before a ``=``.
        option: ``"--only"``: begins the errors.

    Raises:
        UserError: no ``=``, an unknown field, or a field twice.
    """
    chosen: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        field, _, value = part.strip().partition("=")
        if not value:
            raise UserError(f"{option}: expected field=value pairs, got {part!r}; fields: {', '.join(fields)}")
        if field not in fields:
            raise UserError(f"{option}: expected one of its fields, got no field {field!r}; {nearest(field, fields)}")
        if field in chosen:
            raise UserError(
                f"{option}: expected {field} once, got {chosen[field]!r} and {value!r}; "
                f"try {field}={chosen[field]}|{value} for either"
            )
        chosen[field] = value
    return chosen


COUNT = whole(1, 1_000_000)
THREADS = whole(1, 256)
JOBS = whole(1, 4096)
SEED = whole(0, 2**63 - 1)
