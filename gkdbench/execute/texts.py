"""Texts that a method decides the length of, cut to what a record can hold."""

from __future__ import annotations

CHARACTERS = 32 * 1024
"""A record keeps so many characters of a failure's reason, and as many of its traceback."""


def shortened(text: str, characters: int = CHARACTERS) -> str:
    """`text`; of one longer than `characters` the first half of them and the last, and how many are left out."""
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
