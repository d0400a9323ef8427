"""What a method notes in a run, numbers and flags, made fit for a record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from gkdbench.printable import encodable
from gkdbench.records.schema import NOTES

NAME_CHARACTERS, FLAG_CHARACTERS = 200, 1000
"""Names of numbers, and flags, are no longer than that."""


def checked(extra: object, flags: object) -> tuple[dict[str, float], list[str], str]:
    """(numbers by name, flags, what is wrong with the first that is left out; "" when none is).

    Args:
        extra: of a Context: names with ints, floats, or scalars of numpy and torch.
        flags: of a Context: words.
    """
    numbers: dict[str, float] = {}
    words: list[str] = []
    wrong: list[str] = []
    if not isinstance(extra, Mapping):
        wrong.append(f"ctx.extra: expected a dict of numbers, got {type(extra).__name__}")
        extra = {}
    if isinstance(flags, str) or not isinstance(flags, Iterable):
        wrong.append(f"ctx.flags: expected a list of words, got {type(flags).__name__}")
        flags = []
    flags = list(flags)
    if max(len(extra), len(flags)) > NOTES:
        wrong.append(f"expected at most {NOTES:,} numbers and flags, got {len(extra):,} and {len(flags):,}")
        extra, flags = {}, []
    for name, value in extra.items():
        why = _wrong_text(name, NAME_CHARACTERS)
        number = None if why else _number(value)
        if why or number is None:
            shown = encodable(repr(name)[:80])
            got = f"name {why}" if why else f"expected a finite number, got {_shown(value)}"
            wrong.append(f"ctx.extra[{shown}]: {got}")
        else:
            numbers[name] = number
    for flag in flags:
        why = _wrong_text(flag, FLAG_CHARACTERS)
        if why:
            wrong.append(f"a flag of ctx.flags: {why}")
        else:
            words.append(str(flag))
    return numbers, words, wrong[0] if wrong else ""


def _number(value: object) -> float | None:
    """`value` as a finite float; None if it is none."""
    item: Any = getattr(value, "item", None)
    try:
        found = item() if callable(item) else value
        number = float(found) if isinstance(found, (bool, int, float)) else math.nan
    except Exception:  # several elements; an int beyond a float; an object that pretends
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    if isinstance(value, (bool, int, float)):
        return repr(value)[:80]
    return type(value).__name__


def _wrong_text(text: object, most: int) -> str:
    if not isinstance(text, str):
        return f"expected text, got {type(text).__name__}"
    if len(text) > most:
        return f"expected at most {most} characters, got {len(text):,}"
    return "" if encodable(text) == text else "expected characters that UTF-8 has, got a lone surrogate"
